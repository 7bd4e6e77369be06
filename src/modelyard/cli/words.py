"""What people type for objects: `models`, `msvc iris`, `model/iris`, `modelyard`."""

from difflib import get_close_matches

from modelyard.base.errors import UserError
from modelyard.control.kube import resources
from modelyard.control.kube.resources import Resource

CATEGORY = "modelyard"
Named = tuple[Resource, str]


def kinds(word: str) -> tuple[Resource, ...]:
    """`models,msvc` or the category `modelyard`. Raises UserError that lists the kinds."""
    if word.lower() == CATEGORY:
        return resources.OURS
    return tuple(kind(each) for each in word.split(","))


def kind(word: str) -> Resource:
    """By plural, singular, kind or short name."""
    found = resources.find(word)
    if found is None:
        close = get_close_matches(word.lower(), [each.plural for each in resources.ALL], 1)
        if close:
            raise UserError(f"there is no kind {word!r}; did you mean {close[0]}?")
        short = {each: word for word, each in resources.SHORT_NAMES.items()}
        known = ", ".join(f"{each.plural} ({short[each]})" if each in short else each.plural for each in resources.ALL)
        raise UserError(f"there is no kind {word!r}; there are: {known}")
    return found


def objects(words: tuple[str, ...]) -> tuple[Named, ...]:
    """`KIND NAME...`, or `KIND/NAME...`. Raises UserError for anything else."""
    if all("/" in word for word in words):
        return tuple((kind(word.split("/", 1)[0]), word.split("/", 1)[1]) for word in words)
    first, *names = words
    if "/" in first or any("/" in name for name in names) or not names:
        raise UserError(f"{' '.join(words)!r}: expected KIND NAME or KIND/NAME, as in 'modelservice iris'")
    return tuple((kind(first), name) for name in names)


def qualified(resource: Resource, name: str) -> str:
    """`modelservice/iris`: one word for an object, that commands understand."""
    return f"{resource.kind.lower()}/{name}"
