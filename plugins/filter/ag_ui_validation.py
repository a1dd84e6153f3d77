"""Check the role's variables against rules that an argument specification cannot express."""

from __future__ import annotations

import json
import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Returns what is wrong and the remedy, or None.
    Check = Callable[["Variable", "Rule"], str | None]


class Rule(TypedDict, total=False):
    """What a variable must be. Each rule has the keys of one kind.

    A secret: `min_length`, and `required` if it may not be empty.
    A string: `pattern`, a regular expression, and `format`, which describes it.
    A number: `min` and `max`.
    A list: `items`, `network`, `origin` or `endpoint`, and `format`.
    A file on the controller: `read_if`, whether the role reads it, and `executable` if the role runs it.
    """

    min_length: int
    required: bool
    pattern: str
    format: str
    min: int
    max: int
    items: str
    read_if: bool
    executable: bool


class Variable(NamedTuple):
    """A variable of the role.

    Attributes:
        name: Its name.
        value: Its value.
        directory: Where operators set it.
    """

    name: str
    value: Any
    directory: str


_ORIGIN = re.compile(r"^https?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")
_ENDPOINT = re.compile(r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})$")
_PORT_MAX = 65535
# The environment file of the backend cannot represent these.
_NOT_IN_SECRETS = re.compile(r"[\x00-\x1f\x7f]|\$\{")


def _is_network(text: str) -> bool:
    """Whether the text is an IP address, or a network in CIDR notation without host bits."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_origin(text: str) -> bool:
    return _ORIGIN.search(text) is not None


def _is_endpoint(text: str) -> bool:
    match = _ENDPOINT.search(text)
    return match is not None and 0 < int(match[2]) <= _PORT_MAX


_ITEMS = {"network": _is_network, "origin": _is_origin, "endpoint": _is_endpoint}


def _check_secret(variable: Variable, rule: Rule) -> str | None:
    secret = str(variable.value)
    if not secret and not rule.get("required"):
        return None
    if len(secret) >= rule["min_length"] and not _NOT_IN_SECRETS.search(secret):
        return None
    problem = f"does not fit, with its {len(secret)} characters" if secret else "is missing"
    return (
        f"{variable.name} {problem}: it must have at least {rule['min_length']}, and neither "
        f"control characters nor a dollar before a brace. Set it in {variable.directory}/vault.yml, "
        "for example to the output of: openssl rand -base64 48"
    )


def _check_pattern(variable: Variable, rule: Rule) -> str | None:
    text = str(variable.value)
    if re.search(rule["pattern"], text):
        return None
    problem = f"is {json.dumps(text)}" if text else "is missing"
    return (
        f"{variable.name} {problem}: it must be {rule['format']}. "
        f"Set it in {variable.directory}/vars.yml"
    )


def _check_items(variable: Variable, rule: Rule) -> str | None:
    is_valid = _ITEMS[rule["items"]]
    items = variable.value
    # Iterating over a string would check its characters.
    wrong = (
        [items] if isinstance(items, str) else [it for it in map(str, items) if not is_valid(it)]
    )
    if not wrong:
        return None
    return (
        f"{variable.name} has {', '.join(map(json.dumps, wrong))}: it must be a list of "
        f"{rule['format']}. Set it in {variable.directory}/vars.yml"
    )


def _check_range(variable: Variable, rule: Rule) -> str | None:
    # A template can make text of a bound.
    if int(rule["min"]) <= int(variable.value) <= int(rule["max"]):
        return None
    return (
        f"{variable.name} is {variable.value}: it must lie between {rule['min']} and {rule['max']}. "
        f"Set it in {variable.directory}/vars.yml"
    )


def _check_file(variable: Variable, rule: Rule) -> str | None:
    path = str(variable.value)
    if not rule["read_if"] or not path:
        return None
    if not Path(path).is_file():
        return f"{variable.name}: there is no file {path} on the controller. Correct the path"
    if rule.get("executable") and not os.access(path, os.X_OK):
        return f"{variable.name}: {path} is not executable. Run: chmod +x {path}"
    return None


# The key that every rule of the kind has.
_CHECKS: dict[str, Check] = {
    "min_length": _check_secret,
    "pattern": _check_pattern,
    "items": _check_items,
    "min": _check_range,
    "read_if": _check_file,
}


def invalid(values: Mapping[str, Any], rules: Mapping[str, Rule], group: str) -> list[str]:
    """Describe the variables that break their rule, with the remedy and without secrets.

    Args:
        values: Values by variable name. They have the types of the argument specification, or are
            strings that can be converted to them.
        rules: Rules by variable name.
        group: The group of the inventory whose group_vars the messages name.

    Returns:
        One sentence for each wrong variable, in the order of the rules.
    """
    messages = []
    for name, rule in rules.items():
        check = next(check for key, check in _CHECKS.items() if key in rule)
        messages.append(check(Variable(name, values[name], f"group_vars/{group}"), rule))
    return [message for message in messages if message is not None]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_invalid": invalid}
