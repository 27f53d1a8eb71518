"""Configuration of Sphinx: `make docs`."""

import sys
from pathlib import Path

import torch_mmd_losses

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "torch-mmd-losses"
author = "the torch-mmd-losses developers"
copyright = f"2026, {author}"
release = version = torch_mmd_losses.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    # our own, in _extensions
    "edit_links",
    "line_breaks",
    "local_mathjax",
    "public_names",
]
exclude_patterns = ["_build", "_inventories", "_study", "_study_one_step", "gallery/*.py", "gallery/README.rst"]
templates_path = ["_templates"]

# Pages

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Reference: a page for each object, and links to those of PyTorch and NumPy by inventories that need no network

# In docstrings, single backticks mean code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Estimator": "Estimator", "Method": "Method"}
autosummary_context = {
    "documented_members": {
        "MMDLoss": "discriminator, generator, forward, both, terms",
        "ScaledMMDLoss": "discriminator, generator, forward, both, terms",
        "MMDReference": "mmd2, attraction, witness, sums, self_term, error_bound, drmmd2, drmmd_witness, update, "
        "shard, kernel",
        "Kernel": "from_sq_dist, forward, on",
        "Losses": "discriminator, generator",
        "Terms": "k_rr, k_rf, k_ff, saturated",
        "ScaledTerms": "k_rr, k_rf, k_ff, saturated, scale",
        "BlockEstimate": "value, variance",
        "ValueAndVariance": "value, variance",
        "TwoSampleTest": "statistic, p_value",
        "RelativeTest": "difference, variance, statistic, p_value",
    },
    "special_members": {"Kernel": "__add__, __mul__"},
    # Classes that users do not call, or call without arguments.
    "without_arguments": [
        *("EnergyKernel", "Kernel", "LinearKernel", "UsageWarning"),
        *("Losses", "Terms", "ScaledTerms", "BlockEstimate", "ValueAndVariance", "TwoSampleTest", "RelativeTest"),
    ],
}
intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable/", "_inventories/torch.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "_inventories/numpy.inv"),
}
napoleon_numpy_docstring = False
strip_signature_backslash = True  # otherwise the argument lambda_ loses its underscore
python_maximum_signature_line_length = 84

# Gallery

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "/",
    "within_subsection_order": "gallery_figures.BySubject",
    "doc_module": ("torch_mmd_losses",),
    "backreferences_dir": "backreferences",
    "reference_url": {"torch_mmd_losses": None},
    "reset_modules": ("matplotlib", "gallery_figures.reset"),
    "matplotlib_animations": False,
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1,
    "write_computation_times": False,
}

# Appearance; everything comes from files of the site

mathjax_path = "mathjax/tex-chtml.js"
html_theme = "furo"
html_title = f"torch-mmd-losses {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sphinx = False
html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo-dark.svg",
    "source_repository": "https://github.com/torch-mmd-losses/torch-mmd-losses/",
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db7f5", "color-brand-content": "#7db7f5"},
}
