# SPDX-License-Identifier: Apache-2.0
"""The file version in an image's resources, laid out as the PE specification has them."""

from __future__ import annotations

import pytest

from tests.support.version_resource import BASE, DIRECTORY, RESOURCES, directory, image_with, resources
from throwstack.core.memory import memory_of
from throwstack.images.file_version import file_version
from throwstack.images.image import Image
from throwstack.images.modules import Module


def image(tree: bytes, *, wide: bool = False, rva: int = RESOURCES) -> Image:
    """Return an image of which headers and resources are in memory."""
    return Image(Module("app.dll", "", BASE, 0x8000), memory_of({BASE: image_with(tree, wide=wide, rva=rva)}))


@pytest.mark.parametrize("wide", [False, True])
def test_the_version_of_a_32bit_and_of_a_64bit_image(wide: bool):
    assert file_version(image(resources(), wide=wide)) == "5.2.3790.3959"


@pytest.mark.parametrize(
    "without",
    [
        image(resources(), rva=0),  # no resources
        image(resources(kind=24)),  # none of them a version
        image(resources(signature=0)),  # the value is something else
        image(resources(), rva=0x7000),  # paged out
        image(directory((16, DIRECTORY | 0x40)).ljust(0x40, b"\0") + directory()),  # an empty directory
    ],
)
def test_no_version(without: Image):
    assert file_version(without) == ""


def test_a_directory_that_leads_to_itself_ends():
    assert file_version(image(directory((16, DIRECTORY)))) == ""
