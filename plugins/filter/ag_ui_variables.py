"""Convert the role's variables to the types of their argument specification."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable


def typed(values: dict[str, Any], specification: dict[str, Any]) -> dict[str, Any]:
    """Convert values to the types that the specification declares.

    `-e name=value` passes every value as a string, including numbers, booleans and lists.

    Args:
        values: Values by variable name.
        specification: The `options` of an argument specification, by variable name.

    Returns:
        The converted values. A value that cannot be converted is unchanged, and the validation reports it.
    """
    options = {name: option for name, option in specification.items() if name in values}
    # The validator would convert an empty string to a list of one empty string.
    given = {
        name: [] if options[name]["type"] == "list" and value == "" else value
        for name, value in values.items()
    }
    # Plain values, because the validator copies them, and a copy of Ansible's lazy containers includes all variables.
    plain = json.loads(json.dumps(given))
    result: dict[str, Any] = ArgumentSpecValidator(options).validate(plain).validated_parameters
    return result


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_typed": typed}
