"""How Sphinx builds this documentation: `nox -s docs`. Nothing is fetched, and every warning is an error."""

import sys
from pathlib import Path

from redis_stream_client import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "redis_stream_client"
author = "redis_stream_client contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "api_names",
    "command_line",
    "docstring_tables",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # What belongs to others: nothing is fetched to look it up.
    ("py:.*", r"(asyncio|collections|os|datetime|redis|types|typing|contextlib|anyio|logging|opentelemetry)\..*"),
    ("py:.*", r".*\b(Redis|RedisCluster|Unpack|ClassVar|Literal|Iterable|AsyncIterator)$"),
]

# Markdown.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
highlight_language = "none"

# Docstrings: Google's sections, and names in single backticks.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_ivar = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "py:obj"

# Pages.
html_theme = "furo"
html_title = "redis_stream_client"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = True
html_theme_options = {"navigation_with_keys": True}
pygments_style = "tango"
pygments_dark_style = "github-dark"
