"""Mistakes to plant in annotation jobs: what goes on, what is found to blame, what is committed when."""

from planted.defect import Defect

VIDEOS = "annotate/test_videos.py"
JOB = "annotate/test_job.py::test_{}"
FAULTS = "annotate/test_faults.py::test_{}"
PLAN = "annotate/test_plan.py"
ACTORS = "annotate/test_processes.py::test_an_actor_asks_for_no_more_than_a_node_has"
MIDDLE = f"{VIDEOS}::test_a_video_goes_on_in_its_middle_and_ends_with_the_same_bytes"
CHANGED = f"{VIDEOS}::test_a_frame_that_changes_in_its_place_makes_its_video_a_new_one"

JOBS = (
    Defect("a video goes on one frame late", "work/video.py", '"next": frame + 1', '"next": frame + 2', MIDDLE),
    Defect("the state is that of a frame before", "work/video.py", "== SEGMENT else None", "== 3 else kept", MIDDLE),
    Defect("a detector's turn is lost with the state", "video/stream.py", '"tracked_frames", ', "", MIDDLE),
    Defect("a video begins anew", "work/video.py", "return number, torch.load", "return 0, None or torch.load", MIDDLE),
    Defect(
        "a batch with a death stays one by one",
        "work/journal.py",
        "deaths[rest[0]] > 1",
        "deaths[rest[0]] > 0",
        JOB.format("the_first_source_that_dies_explains_its_batch_and_others_must_die_twice"),
    ),
    Defect(
        "poison is tried for ever",
        "work/worker.py",
        "                journal.note_source(source.name)\n",
        "",
        JOB.format("an_image_that_kills_its_process_is_quarantined_alone"),
    ),
    Defect(
        "a batch is another one after a death",
        "work/worker.py",
        "            if deaths < BATCH_DEATHS:",
        "            if not deaths:",
        JOB.format("a_batch_in_which_a_process_died_is_probed_and_then_done_as_it_is"),
    ),
    Defect(
        "the filters are forgotten",
        "annotate/job.py",
        '{**before["settings"], **before.get("run", {})}',
        '{**before["settings"]}',
        FAULTS.format("a_job_that_is_gone_on_with_writes_the_labels_that_were_asked_for"),
    ),
    Defect(
        "failures of the run before are forgotten",
        "annotate/job.py",
        "images - left, failed, status",
        "images - left, 0, status",
        FAULTS.format("failures_of_the_run_before_count"),
    ),
    Defect("a changed file keeps its records", "annotate/plan.py", "[2:] == one[2:]", "[3:] == one[3:]", PLAN),
    Defect(
        "a frame edited in place is not seen",
        "annotate/plan.py",
        "int(digest(frames), 16)",
        "found.st_mtime_ns",
        VIDEOS,
    ),
    Defect("an actor asks for the cores of all nodes", "cluster.py", "max(cores, default=1)", "sum(cores)", ACTORS),
    Defect("a job annotates its own links", "annotate/plan.py", "entry.name == PLAN", "not entry.name", PLAN),
    Defect("labels of two images in one file", "annotate/plan.py", "!= source.name", "is None", PLAN),
    Defect(
        "an id follows from the path",
        "annotate/plan.py",
        "return self.name, self.size",
        "return self.path, self.size",
        PLAN,
    ),
)
