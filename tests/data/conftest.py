from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smplx_body(fake_smplx_file: Path):
    """SMPL-X with 11 betas from the made-up file, for miniatures and to put their samples back together."""
    pytest.importorskip("smplx", reason="the smplx package is not installed: pip install 'multihmr[smplx]'")
    from multihmr.bodies.smplx import SMPLX

    return SMPLX(fake_smplx_file, shape_count=11)
