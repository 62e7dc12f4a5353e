"""Prompts in batches for the network, whose rows restore the order."""

import torch
from support.prompts import MASK, SHAPE

from samplug.prompts.objects import Prompts, prompt_batches
from samplug.transforms import ImageTransform


def mixed():
    """Eight objects of five forms, in no order."""
    points = [[3, 4], [[3, 4], [5, 6]], None, [7, 8], None, [[1, 1], [2, 2]], [9, 9], None]
    labels = [1, [1, 0], None, 0, None, [1, 1], 1, None]
    boxes = [None, None, [1, 2, 30, 40], None, [5, 6, 9, 9], None, [1, 1, 20, 20], None]
    masks = [None] * 7 + [MASK]
    return Prompts.read(points=points, labels=labels, bboxes=boxes, masks=masks, shape=SHAPE)


def test_batches_are_even_and_their_rows_restore_the_order():
    prompts, transform = mixed(), ImageTransform(SHAPE, (96, 96))
    empty = Prompts.read(bboxes=[])
    batches = prompt_batches([empty, empty, prompts], [transform] * 3)
    assert [rows.tolist() for rows, _ in batches] == [[0, 3], [1, 5], [2, 4], [6], [7]]
    for rows, batch in batches:
        assert batch.image_index.tolist() == [2] * len(rows)
        for at, row in enumerate(rows.tolist()):
            prompt = prompts.objects[row]
            assert (batch.points is None) == (len(prompt.points) == 0)
            if batch.points is not None:
                assert torch.equal(batch.points[at], transform.points_to_input(prompt.points))
                assert torch.equal(batch.labels[at], prompt.labels)
            assert (batch.boxes is None) == (prompt.box is None)
            if prompt.box is not None:
                assert torch.equal(batch.boxes[at], transform.boxes_to_input(prompt.box))
            assert (batch.masks is None) == (prompt.mask is None)
            if prompt.mask is not None:
                assert torch.equal(batch.masks[at], transform.mask_to_input(prompt.mask)[None])


def test_the_tensors_of_a_batch_have_the_networks_types_and_shapes():
    (_, clicks), _, (_, boxed), _, (_, masked) = prompt_batches([mixed()], [ImageTransform(SHAPE, (96, 64))])
    assert (clicks.points.shape, clicks.points.dtype) == ((2, 1, 2), torch.float32)
    assert (clicks.labels.shape, clicks.labels.dtype) == ((2, 1), torch.int64)
    assert (boxed.boxes.shape, boxed.boxes.dtype) == ((2, 4), torch.float32)
    assert (masked.masks.shape, masked.masks.dtype) == ((1, 1, 24, 16), torch.float32)
    assert clicks.image_index.dtype == torch.int64


def test_the_objects_of_several_images_share_batches():
    images = [Prompts.read(points=[[3, 4], [5, 6]]), Prompts.read(bboxes=[]), Prompts.read(points=[3, 4])]
    transforms = [
        ImageTransform(SHAPE, (96, 96)),
        ImageTransform((10, 10), (96, 96)),
        ImageTransform((480, 640), (96, 96)),
    ]
    ((rows, batch),) = prompt_batches(images, transforms)
    assert rows.tolist() == [0, 1, 2]
    assert batch.image_index.tolist() == [0, 0, 2]
    assert torch.allclose(batch.points[:, 0, 0], torch.tensor([4.5, 7.5, 0.45]))


def test_no_objects_make_no_batches():
    assert prompt_batches([Prompts.read(bboxes=[])], [ImageTransform(SHAPE, (96, 96))]) == []
