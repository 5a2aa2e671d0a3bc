//! What reading a document may cost, counted while it is read.
//!
//! A file can be small and mean something huge: aliases of aliases, defaults of defaults. So what is counted is what comes
//! out, before it is made. Counters and no clock: the same file is refused everywhere, and tests can look at them.

use std::fmt;

/// Something that a document uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of all files together.
    Bytes,
    /// Scalars, lists and maps, those included that aliases put in.
    Values,
    /// Lists and maps in each other; defaults of variables in each other.
    Depth,
    /// Values that are there because of anchors and aliases.
    Aliases,
    /// Bytes of scalars and keys, with aliases and variables expanded.
    Text,
    /// Mentions of variables.
    Variables,
    /// Mistakes that are reported.
    Problems,
}

const RESOURCES: usize = 7;

/// How much of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost([usize; RESOURCES]);

/// Counts what a document costs, and refuses what is beyond its budget.
#[derive(Clone, Debug)]
pub struct Meter {
    cost: Cost,
    budget: Cost,
}

/// More than the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much: more than {most} {resource}")]
pub struct Exceeded {
    /// Of what.
    pub resource: Resource,
    /// How much there may be.
    pub most: usize,
}

impl Cost {
    /// What any manifest may cost. Real ones are far below, and the worst within it are refused or read in milliseconds.
    pub const BUDGET: Self = Self([
        1024 * 1024,
        100_000,
        64,
        20_000,
        4 * 1024 * 1024,
        10_000,
        1_000,
    ]);

    /// How much of a resource.
    pub const fn of(&self, resource: Resource) -> usize {
        self.0[resource as usize]
    }

    /// The same with another amount of a resource.
    #[must_use]
    pub const fn with(mut self, resource: Resource, amount: usize) -> Self {
        self.0[resource as usize] = amount;
        self
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::within(Cost::BUDGET)
    }
}

impl Meter {
    /// Nothing is used up yet.
    pub fn within(budget: Cost) -> Self {
        Self {
            cost: Cost::default(),
            budget,
        }
    }

    /// What was used up; never more than the budget.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The budget of a resource.
    pub fn most(&self, resource: Resource) -> usize {
        self.budget.of(resource)
    }

    /// Uses up some more.
    pub fn spend(&mut self, resource: Resource, amount: usize) -> Result<(), Exceeded> {
        self.reach(resource, self.cost.of(resource).saturating_add(amount))
    }

    /// Notes that so much is in use at once.
    pub fn reach(&mut self, resource: Resource, level: usize) -> Result<(), Exceeded> {
        let most = self.budget.of(resource);
        if level > most {
            return Err(Exceeded { resource, most });
        }
        let highest = level.max(self.cost.of(resource));
        self.cost = self.cost.with(resource, highest);
        Ok(())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes in the files of a manifest",
            Self::Values => "values",
            Self::Depth => "levels in each other",
            Self::Aliases => "values that come from anchors and aliases",
            Self::Text => "bytes of text with aliases and variables expanded",
            Self::Variables => "mentions of variables",
            Self::Problems => "mistakes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_not_counted() {
        let mut meter = Meter::within(Cost::default().with(Resource::Values, 3));
        assert_eq!(meter.spend(Resource::Values, 3), Ok(()));
        for amount in [1, usize::MAX] {
            let refused = meter.spend(Resource::Values, amount).unwrap_err();
            assert_eq!(refused.to_string(), "too much: more than 3 values");
        }
        assert_eq!(meter.cost().of(Resource::Values), 3);
        assert_eq!(meter.cost().of(Resource::Text), 0);
    }
}
