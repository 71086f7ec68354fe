"""Tasks: what a model can do. To add one: one file here, and one line below."""

from ..plugs import Task, build_plug, one_key
from ..registry import Registry

TABLE: dict[str, str] = {
    "classification": "mmfilter.tasks.classify:Classification",
    "faces": "mmfilter.tasks.groups:Faces",
    "groups": "mmfilter.tasks.groups:Groups",
    "multilabel": "mmfilter.tasks.classify:Multilabel",
    "pairs": "mmfilter.tasks.retrieve:Pairs",
    "retrieval": "mmfilter.tasks.retrieve:Retrieval",
    "scene_choice": "mmfilter.tasks.scenes:SceneChoice",
    "scene_classes": "mmfilter.tasks.scenes:SceneClasses",
    "scene_retrieval": "mmfilter.tasks.scenes:SceneRetrieval",
    "winogavil": "mmfilter.tasks.winogavil:Winogavil",
}

TASKS = Registry("tasks", TABLE)


def build_task(node: object, where: str) -> Task:
    """A task from a one-key mapping, ``{classification: {root: ...}}``, or a bare name. Raises UsageError."""
    name, fields = one_key(node, where)
    task: Task = build_plug(TASKS.get(str(name), where), fields, f"{where}.{name}")
    return task
