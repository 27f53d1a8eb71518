"""Configuration of Sphinx: `make docs`."""

import torch_mmd_losses

project = "torch-mmd-losses"
author = "the torch-mmd-losses developers"
copyright = f"2026, {author}"
release = version = torch_mmd_losses.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_study"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# In docstrings, single backticks mean code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Estimator": "Estimator", "Method": "Method"}
napoleon_numpy_docstring = False
strip_signature_backslash = True  # otherwise the argument lambda_ loses its underscore
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"torch-mmd-losses {release}"
html_static_path = ["_static"]
html_show_sphinx = False
