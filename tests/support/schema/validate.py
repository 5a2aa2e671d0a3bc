"""Checks manifests against the committed JSON Schema with a draft-4 and a draft-7 validator, as editors do.

validate.py SCHEMA --good FILE... --bad FILE...

Every good file must satisfy the schema under both drafts, and no bad file under either. Needs `jsonschema` and `ruamel.yaml`.
"""

import argparse
import json
import sys
import tomllib

from jsonschema import Draft4Validator, Draft7Validator
from ruamel.yaml import YAML


def read(path):
    if path.endswith(".toml"):
        with open(path, "rb") as file:
            return tomllib.load(file)
    with open(path, encoding="utf-8") as file:
        # YAML 1.2, as kimi-shell reads it: `NO` is text.
        return YAML(typ="safe", pure=True).load(file)


def mistakes(validator, document):
    for error in sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path))):
        place = ".".join(map(str, error.absolute_path)) or "the top"
        yield f"{place}: {error.message}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("schema")
    parser.add_argument("--good", nargs="*", default=[])
    parser.add_argument("--bad", nargs="*", default=[])
    args = parser.parse_args()
    with open(args.schema, encoding="utf-8") as file:
        schema = json.load(file)
    wrong = 0
    for kind in (Draft4Validator, Draft7Validator):
        kind.check_schema(schema)
        validator = kind(schema)
        for path in args.good:
            for mistake in mistakes(validator, read(path)):
                wrong += 1
                print(f"{kind.__name__}: {path}: {mistake}")
        for path in args.bad:
            if not any(mistakes(validator, read(path))):
                wrong += 1
                print(f"{kind.__name__}: {path}: found nothing wrong with it")
    print(f"{len(args.good)} good and {len(args.bad)} bad manifests, two drafts, {wrong} mistakes")
    return wrong > 0 or not args.good


if __name__ == "__main__":
    sys.exit(main())
