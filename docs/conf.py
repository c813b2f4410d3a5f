"""How Sphinx builds the documentation: `python3 run.py docs`.

Nothing is fetched: the build works without a network. Every warning is an error, and a name in the API reference that
leads nowhere is one.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

project = "posjournal_async"
language = "en"
html_show_copyright = False
html_show_sphinx = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

# The pages are read on GitHub too: headings have the anchors that they have there.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

html_theme = "furo"
html_title = "posjournal_async"
html_static_path = ["pictures"]
html_css_files = ["pictures.css"]
html_copy_source = False
smartquotes = False  # `""` in a docstring is Python
html_theme_options = {"navigation_with_keys": True}

# A prompt is not copied, nor is what a command printed.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# The docstrings are Google's form with Markdown's `names`: what is a name of the library becomes a link, and what is
# not stays code.
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # not "Variables", and no types twice
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 100

# What is not of this library leads nowhere, since there is no network to look it up; `names` in prose need not lead
# anywhere; type variables are no objects.
nitpick_ignore_regex = [
    (r"py:(class|exc|func|meth)", r"(?!posjournal_async)([a-z_]+\.)+\w+"),
    (r"py:(class|exc)", r"(int|str|bytes|float|bool|None|object|range|list|dict|tuple|frozenset)"),
    (r"py:(class|exc)", r"\w*(Error|Exception|Warning)"),
    (r"py:class", r"([TUM]|Old)|posjournal_async\.[\w.]+\.[TUM]|Buffer|Path|Message|\w+Provider|\w+Registry"),
    # What a caller of the testing kit hands in is described in words where it is taken.
    (r"py:class", r"Service|Check|.*\.Attached"),
    (r"py:obj", r".*"),
]

# Made by the class methods of `Journal`; what `__init__` takes is nobody's business. Nor is it a protocol's.
_WITHOUT_ARGUMENTS = {"posjournal_async.Journal", "posjournal_async.journal.Opening"}

_ROOT = Path(__file__).resolve().parents[1]

# Pages of the repository, and where they are shown here.
_PAGES = {str(_ROOT / "CHANGELOG"): "changelog", str(_ROOT / "README"): "index"}


def setup(app: Any) -> dict[str, bool]:
    """Add what the values above cannot say."""
    app.connect("autodoc-process-signature", _shown_signature)
    app.connect("doctree-read", _lead_out, priority=100)  # before Sphinx collects what is to be downloaded
    app.connect("doctree-read", _unlink_parameters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _shown_signature(
    _app: Any, _what: str, name: str, found: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    if name in _WITHOUT_ARGUMENTS or getattr(found, "_is_protocol", False):
        return "", None
    if signature is not None and is_dataclass(found):
        for field in fields(found):
            if field.default_factory is not MISSING:
                signature = signature.replace("<factory>", f"{getattr(field.default_factory, '__name__', '...')}()", 1)
    return signature and signature.replace("_DEFAULT_BUFFER", "262144"), returns


def _lead_out(app: Any, page: Any) -> None:
    """Let links to what lies outside `docs`, which GitHub follows, lead somewhere here too.

    An example leads to its source on the page of examples. Any other file is handed out as it is. A folder leads
    nowhere, and its name stays.
    """
    for link in [*page.findall(addnodes.download_reference), *page.findall(addnodes.pending_xref)]:
        target = link["reftarget"]
        if link.get("reftype") != "myst":
            continue
        if link["refdomain"] == "doc":
            link["reftarget"] = _PAGES.get(target, target)
            continue
        place = Path(app.env.relfn2path(target.split("#")[0], app.env.docname)[1]).resolve()
        if place.is_dir():
            link.replace_self(link.children)
        elif place.parent == _ROOT / "examples" and place.suffix == ".py":
            anchor = place.name.replace(".", "")  # as GitHub makes it of the heading
            facts = {"refdoc": app.env.docname, "reftype": "myst", "refexplicit": True}
            lead = addnodes.pending_xref(refdomain="doc", reftarget="examples", reftargetid=anchor, **facts)
            lead.source, lead.line = link.source, link.line
            lead += [nodes.inline("", "", *child.children, classes=["xref", "myst"]) for child in link.children]
            link.replace_self(lead)


def _unlink_parameters(_app: Any, page: Any) -> None:
    """Let `size` in the description of what takes a `size` be that, and no link to the method of that name."""
    for described in page.findall(addnodes.desc):
        signatures = [child for child in described.children if isinstance(child, addnodes.desc_signature)]
        parameters = {
            parameter.next_node(addnodes.desc_sig_name).astext()
            for signature in signatures
            for parameter in signature.findall(addnodes.desc_parameter)
            if parameter.next_node(addnodes.desc_sig_name) is not None  # it is for `*`
        }
        for link in list(described.findall(addnodes.pending_xref)):
            if link.get("reftype") == "obj" and link["reftarget"] in parameters:
                link.replace_self(link.children)
