"""Pages of HTML, one file each: nothing in them is fetched from anywhere.

Made with Jinja2; every text is escaped by it (autoescape).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def page(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file.

    Raises:
        UndefinedError: the template wants more than it is given.
    """
    return str(_environment().get_template(template).render(**values))


def prepare(template: str) -> None:
    """Read now what a template's page is made of: whoever makes it may have lost the right to."""
    environment = _environment()
    for name in environment.list_templates():
        if name == template or name.startswith("page."):
            environment.get_template(name)


@lru_cache(maxsize=1)
def _environment() -> Any:
    # Deferred: only a page needs it.
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("rsttrace", "render"),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
