//! Shells that are warm before they are needed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::debug;

use crate::runtime::RuntimeHandle;
use crate::session::{Session, SessionError, SessionSpec};

/// Keeps warm sessions for callers that want a clean shell at once.
#[derive(Clone, Debug)]
pub struct SessionPool(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    handle: RuntimeHandle,
    spec: SessionSpec,
    size: usize,
    warm: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    ready: VecDeque<Session>,
    /// How many are being started.
    coming: usize,
}

impl SessionPool {
    /// A pool that keeps so many shells warm. The first ones are begun at once; each takes a place of `max_concurrent`.
    pub fn new(handle: RuntimeHandle, spec: SessionSpec, size: usize) -> Self {
        let pool = Self(Arc::new(Shelf {
            handle,
            spec,
            size,
            warm: Mutex::default(),
        }));
        pool.restock();
        pool
    }

    /// A clean session: a warm one if there is one, otherwise a new one. Another is warmed in its place.
    pub async fn take(&self) -> Result<Session, SessionError> {
        let warm = loop {
            let session = self.stock().ready.pop_front();
            match session {
                // It may have died on the shelf.
                Some(session) if session.is_usable() => break Some(session),
                Some(_) => {}
                None => break None,
            }
        };
        self.restock();
        if let Some(session) = warm {
            return Ok(session);
        }
        let mut session = Session::new(self.0.handle.clone(), self.0.spec.clone());
        session.warm().await?;
        Ok(session)
    }

    /// How many shells are warm now.
    pub fn warm(&self) -> usize {
        self.stock().ready.len()
    }

    fn stock(&self) -> std::sync::MutexGuard<'_, Stock> {
        self.0.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restock(&self) {
        let missing = {
            let mut stock = self.stock();
            let missing = (self.0.size)
                .saturating_sub(stock.ready.len())
                .saturating_sub(stock.coming);
            stock.coming += missing;
            missing
        };
        for _ in 0..missing {
            let weak = Arc::downgrade(&self.0);
            let mut session = Session::new(self.0.handle.clone(), self.0.spec.clone());
            // Ends when the shell is warm or could not be; a pool that is gone meanwhile drops it.
            tokio::spawn(async move {
                let warmed = session.warm().await;
                let Some(pool) = weak.upgrade() else {
                    return;
                };
                let mut stock = pool.warm.lock().unwrap_or_else(PoisonError::into_inner);
                stock.coming -= 1;
                match warmed {
                    Ok(()) => stock.ready.push_back(session),
                    // The next who takes one tries again, and is told.
                    Err(error) => debug!(%error, "a shell could not be warmed"),
                }
            });
        }
    }
}
