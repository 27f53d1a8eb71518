"""Edit links of generated pages lead to files that exist and hold the object."""

import pytest
from edit_links import ROOT, source_of

import torch_mmd_losses


@pytest.mark.parametrize("name", torch_mmd_losses.__all__)
def test_objects_lead_to_their_module(name):
    source = (ROOT / source_of(f"api/torch_mmd_losses.{name}")).read_text(encoding="utf-8")
    assert f"def {name}(" in source or f"class {name}(" in source


def test_other_generated_pages():
    assert source_of("api/torch_mmd_losses.results.Terms") == "torch_mmd_losses/results.py"
    assert source_of("api/torch_mmd_losses.types.Estimator") == "torch_mmd_losses/types.py"
    assert source_of("auto_gallery/index") == "docs/gallery/README.rst"
    assert (ROOT / source_of("auto_gallery/bandwidth_and_saturation")).is_file()
    assert source_of("gan") is None
