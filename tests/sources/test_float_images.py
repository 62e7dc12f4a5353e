"""Images of floats: 1 is white where nothing is above it, and what holds NaN or infinity is refused by its name."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import BOX, film, predictor_of

from samplug import SAM, SAM2CameraPredictor
from samplug.checkpoints.load import load_model
from samplug.errors import SourceError
from samplug.sources.image import read_image

REASON = "holds NaN or infinity"
SPOILERS = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture
def predict(model):
    return lambda source, **said: model.predict(source, **{"verbose": False, "imgsz": 64, "bboxes": [BOX], **said})


def floats():
    """An image in 0-1, BGR."""
    return film()[0].astype(np.float32) / 255


def spoilt(value=np.nan):
    image = floats()
    image[5, 7, 1] = value
    return image


def as_tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))


FILES = {
    "colour.tif": lambda path, image: cv2.imwrite(path, image),
    "colour.pfm": lambda path, image: cv2.imwrite(path, image),
    "grey.tif": lambda path, image: Image.fromarray(image[..., 1]).save(path),  # which OpenCV cannot read
}


@pytest.mark.host
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("white", [1, 255])
def test_a_file_of_floats_is_the_image_that_it_was_made_of(tmp_path, name, white):
    FILES[name](str(tmp_path / name), floats() * white)
    image = film()[0][..., 1:2].repeat(3, 2) if name.startswith("grey") else film()[0]
    assert np.abs(read_image(tmp_path / name).astype(int) - image).max() <= 1


def test_a_pil_image_of_floats_is_one_too():
    assert np.array_equal(read_image(Image.fromarray(floats()[..., 0]))[..., 0], film()[0][..., 0])


@pytest.mark.host
@pytest.mark.parametrize("value", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_finite_numbers_is_refused_by_its_name(predict, tmp_path, name, value):
    path = str(tmp_path / name)
    FILES[name](path, spoilt(value))
    for source in ([path], path)[: 1 if name.endswith("pfm") else 2]:  # new releases know no PFM by itself
        with pytest.raises(SourceError, match=f"{path}: the image {REASON}"):
            predict(source)


@pytest.mark.parametrize("value", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_array_is_refused_likewise_alone_and_left_out_among_others(model, predict, value, dtype):
    image = spoilt(value).astype(dtype)
    for bad in (image, [image], [as_tensor(image.astype(np.float32))]):
        with pytest.raises(SourceError, match=f"image0.jpg: the (image|tensor) {REASON}"):
            predict(bad)
    assert [result.path for result in predict([floats(), image, floats()])] == ["image0.jpg", "image2.jpg"]
    (fault,) = model.predictor.errors.all
    assert fault.name == "image1.jpg" and REASON in fault.reason
    with pytest.raises(SourceError, match="image1.jpg"):
        predict([floats(), image], on_error="raise")
    assert predict([image], on_error="skip") == []


def test_everything_refuses_it_too(predict):
    with pytest.raises(SourceError, match=REASON):
        predict(spoilt(), bboxes=None, points_stride=2)


@pytest.mark.parametrize("prompts", [{"bboxes": [BOX]}, {"bboxes": None, "points_stride": 2}])
def test_a_batch_in_a_tensor_is_refused(predict, prompts):
    batch = torch.stack([as_tensor(cv2.resize(image, (64, 64))) for image in (floats(), spoilt())])
    with pytest.raises(ValueError, match=f"the tensor {REASON}"):
        predict(batch, **prompts)


def test_a_frame_is_left_out_of_a_video_and_its_number_stays_unused(nano_file):
    frames = [frame.astype(np.float32) / 255 for frame in film()[:3]]
    frames[1][0, 0, 0] = np.nan
    for source in (frames, iter(frames), torch.stack([as_tensor(frame) for frame in frames])):
        worker = predictor_of(load_model(nano_file))
        results = list(worker(source=source, stream=True, bboxes=[BOX]))
        assert [result.frame for result in results] == [0, 2] and REASON in worker.errors.all[0].reason


def test_set_image_and_a_camera_refuse_it(model, nano_file):
    model.predict(floats(), bboxes=[BOX], verbose=False, imgsz=64)
    with pytest.raises(SourceError, match=REASON):
        model.predictor.set_image(spoilt())
    camera = SAM2CameraPredictor(overrides={"model": str(nano_file), "imgsz": 64, "verbose": False})
    with pytest.raises(SourceError, match=REASON):
        camera.step(spoilt(), {"bboxes": [BOX]})
    assert camera.step(floats(), {"bboxes": [BOX]}).frame == 0
