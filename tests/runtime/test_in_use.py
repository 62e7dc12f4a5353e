"""A predictor in use refuses a second call at once: by an open stream, by its own callback, in another thread."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from support.images import draw

from samplug import SAM, SAM2CameraPredictor, SAM2DynamicInteractivePredictor, SAM2Predictor, SAM2VideoPredictor

IMAGE = draw(96, 128, 1)
FRAMES = [np.roll(IMAGE, 3 * i, 1) for i in range(3)]
BOX = [30, 20, 70, 60]
SECONDS = 60  # in which a call that is refused at once has long returned

KINDS = {
    "image": SAM2Predictor,
    "video": SAM2VideoPredictor,
    "interactive": SAM2DynamicInteractivePredictor,
    "camera": SAM2CameraPredictor,
}
SHOW = {"obj_ids": [7], "update_memory": True}
CALLS = {  # on which predictors, and the call
    "the same call": (("image", "video", "interactive"), lambda p: p(IMAGE, bboxes=[BOX], **told(p))),
    "a stream": (("image", "video", "interactive"), lambda p: next(p(FRAMES, stream=True, bboxes=[BOX], **told(p)))),
    "everything": (("image",), lambda p: p(IMAGE, points_stride=2)),
    "set_image": (("image", "interactive"), lambda p: p.set_image(IMAGE)),
    "embed": (("image",), lambda p: p.embed(IMAGE)),
    "step": (("camera",), lambda p: p.step(IMAGE)),
    "reconfigure": (("image", "video", "interactive"), lambda p: p.reconfigure({})),
}
CASES = [(kind, call) for call, (kinds, _) in CALLS.items() for kind in kinds]


def told(predictor):
    return SHOW if isinstance(predictor, SAM2DynamicInteractivePredictor) else {}


def made(network, kind):
    predictor = KINDS[kind](overrides={"imgsz": 128, "verbose": False, "save": False})
    predictor.setup_model(network, verbose=False)
    return predictor


def begin(predictor):
    """Start a stream and take its first result."""
    stream = predictor(FRAMES, stream=True, bboxes=[BOX], **told(predictor))
    return stream, next(stream)


def refused(work):
    """Whether a call in a thread of its own ends in time, and with which error."""
    errors = []

    def run():
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "it hangs"
    return errors[0] if errors else None


@pytest.mark.parametrize(("kind", "call"), [case for case in CASES if case[0] != "camera"])
def test_beside_its_open_stream_a_call_is_refused_and_the_stream_goes_on(network, kind, call):
    predictor = made(network, kind)
    alone = list(predictor(FRAMES, stream=True, bboxes=[BOX], **told(predictor)))
    predictor = made(network, kind)
    stream, first = begin(predictor)
    error = refused(lambda: CALLS[call][1](predictor))
    assert isinstance(error, RuntimeError) and "close it (stream.close())" in str(error)
    results = [first, *stream]
    assert len(results) == 3
    assert all(torch.equal(a.masks.data, b.masks.data) for a, b in zip(alone, results, strict=True))
    assert predictor(IMAGE, bboxes=[BOX], **told(predictor))


@pytest.mark.parametrize(("kind", "call"), [case for case in CASES if case[0] != "camera"])
def test_from_its_own_callback_a_call_is_refused(network, kind, call):
    predictor = made(network, kind)
    predictor.add_callback("on_predict_batch_end", lambda each: CALLS[call][1](each))
    error = refused(lambda: predictor(IMAGE, bboxes=[BOX], **told(predictor)))
    assert isinstance(error, RuntimeError) and "one of its own callbacks" in str(error)


@pytest.mark.parametrize(("kind", "call"), CASES)
def test_while_another_thread_computes_a_call_is_refused(network, kind, call):
    predictor = made(network, kind)
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        go_on.wait(SECONDS)

    hook = network.image_encoder.register_forward_pre_hook(wait)
    work = (lambda: predictor.step(IMAGE)) if kind == "camera" else (lambda: begin(predictor)[0].close())
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        assert inside.wait(SECONDS)
        error = refused(lambda: CALLS[call][1](predictor))
    finally:
        hook.remove()
        go_on.set()
        thread.join(SECONDS)
    assert isinstance(error, RuntimeError) and "computing in another thread" in str(error)
    assert not thread.is_alive()


@pytest.mark.parametrize("method", ["add_new_prompts", "remove_object", "clear_prompts", "reset"])
def test_prompts_of_another_thread_come_between_two_results(network, method):
    predictor = made(network, "video")
    predictor.callbacks["on_predict_postprocess_end"] = [lambda each: errors.append(refused(change))]
    errors = []

    def change():
        kwargs = {"obj_id": 0} if method != "reset" else {}
        kwargs |= {"bboxes": BOX, "frame_idx": None} if method == "add_new_prompts" else {}
        getattr(predictor, method)(**kwargs)

    stream, _ = begin(predictor)
    assert isinstance(errors[0], RuntimeError) and "computing in another thread" in str(errors[0])
    assert refused(change) is None  # the caller has a result in hand
    stream.close()


def test_a_stream_that_is_closed_or_forgotten_frees_its_predictor(network):
    predictor = made(network, "image")
    stream, _ = begin(predictor)
    stream.close()
    assert predictor(IMAGE, bboxes=[BOX])
    for result in predictor(FRAMES, stream=True, bboxes=[BOX]):
        assert result
        break
    assert predictor(IMAGE, bboxes=[BOX])
    with pytest.raises(ValueError, match="bboxes"):
        predictor(IMAGE, bboxes="nonsense")
    assert predictor(IMAGE, bboxes=[BOX])


def test_one_model_with_a_memory_refuses_as_its_predictor_does(nano_file):
    model, given = SAM(nano_file), {"predictor": SAM2DynamicInteractivePredictor, "imgsz": 128, "verbose": False}
    stream = model.predict(FRAMES, bboxes=[BOX], stream=True, **SHOW, **given)
    next(stream)
    assert "stream.close()" in str(refused(lambda: model.predict(IMAGE, **given)))
    assert len(list(stream)) == 2 and len(model.predict(IMAGE, **given)[0]) == 1


def test_an_image_that_another_thread_replaced_is_not_answered_for(network):
    predictor = made(network, "image")
    predictor.set_image(FRAMES[0])
    assert refused(lambda: predictor(bboxes=[BOX])) is None  # a thread without an image of its own
    assert refused(lambda: predictor.set_image(FRAMES[1])) is None
    with pytest.raises(RuntimeError, match="Another thread has given this predictor another image"):
        predictor(bboxes=[BOX])
    predictor.set_image(FRAMES[0])
    assert predictor(bboxes=[BOX])


def test_frames_of_a_camera_that_two_threads_step_are_each_counted_once(network):
    camera, numbers = made(network, "camera"), []
    camera.step(IMAGE, {7: {"bboxes": [BOX]}})

    def work():
        for _ in range(4):
            try:
                numbers.append(camera.step(IMAGE).frame)
            except RuntimeError as error:
                assert "another thread" in str(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(numbers) == list(range(1, len(numbers) + 1)) and len(numbers) >= 4


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda camera: pickle.loads(pickle.dumps(camera))])
def test_a_copy_of_a_camera_says_that_it_does_not_track_its_objects(network, capture_log, copied):
    camera = made(network, "camera")
    assert len(copied(camera).step(IMAGE)) == 0 and not capture_log
    camera.step(IMAGE, {7: {"bboxes": [BOX]}})
    other = copied(camera)
    assert any("does not track its objects [7]" in line for line in capture_log)
    assert len(other.step(IMAGE)) == 0 and camera.step(IMAGE).frame == 1
