"""Give the role's variables the types of their specification, wherever their values come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable


def typed(values: dict[str, Any], specification: dict[str, Any]) -> dict[str, Any]:
    """Convert values to the types that are specified for them.

    `-e name=value` gives every value as text, also a number, a boolean or a list.

    Args:
        values: Values by the names of their variables.
        specification: Options of an argument specification.

    Returns:
        The converted values; those that cannot be converted as they are, for the validation to name.
    """
    options = {name: option for name, option in specification.items() if name in values}
    # An empty text would become a list of one empty text.
    given = {
        name: [] if options[name]["type"] == "list" and value == "" else value
        for name, value in values.items()
    }
    result: dict[str, Any] = ArgumentSpecValidator(options).validate(given).validated_parameters
    return result


class FilterModule:
    """What Ansible takes from here."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """The filters by their names in templates."""
        return {"ag_ui_typed": typed}
