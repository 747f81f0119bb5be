"""What groups, nodes, devices and host applications may be called, and the assets after them."""


def check_name(name: str) -> None:
    """Refuse what cannot be a group, node, device or host application."""
    if not name or set(name) & set("+/#"):
        raise ValueError(f"{name!r} is no Sparkplug name: not empty, without + / #")


def check_asset(pattern: str) -> None:
    """Refuse what is not made of ``{group}``, ``{node}`` and ``{device}``.

    >>> check_asset("{node}-{device}")
    """
    try:
        check_name(pattern.format(group="group", node="node", device="device"))
    except (LookupError, AttributeError, ValueError) as error:
        text = f"asset {pattern!r} is not made of {{group}}, {{node}} and {{device}}"
        raise ValueError(text) from error
