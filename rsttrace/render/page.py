"""Pages of HTML, one file each: nothing in them is fetched from anywhere.

Made with Jinja2; every text is escaped by it (autoescape).
"""

from __future__ import annotations

from typing import Any


def page(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file.

    Raises:
        UndefinedError: the template wants more than it is given.
    """
    # Deferred: only a page needs it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rsttrace", "render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
