"""Annotation tasks as Scale and Label Studio take them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from saaa.annotations import Unit
from saaa.annotations.drawing import ATTRIBUTES, BOX, NAME, RELATIONSHIPS
from saaa.annotations.readers import (
    DESCRIPTION,
    RATING,
    STUDIO_DESCRIPTION,
    STUDIO_RATING,
    STUDIO_TYPE,
    TYPE,
)

ASK_TYPE = "What does the highlighted area show for the prompt word: an object, an attribute or a relationship?"
ASK_DESCRIPTION = (
    "What is it? An object: its name. An attribute: (object, attribute). "
    "A relationship: (object, relationship, object)."
)
ASK_RATING = "How well does the highlighted area fit the prompt word? From 1 (not at all) to 5 (entirely)."
ASK_RATIONALE = "What in this picture should matter for the statement? Draw a box around each object and name it."

_FIELDS = tuple(
    {"type": "text", "field_id": name, "title": name, "description": question, "required": True}
    for name, question in ((TYPE, ASK_TYPE), (DESCRIPTION, ASK_DESCRIPTION), (RATING, ASK_RATING))
)

# The same for every task: what differs, text of models and data sets, comes from the task's data, never into this XML.
ATTRIBUTION_LABELS = f"""<View>
  <Header value="Prompt word"/>
  <Text name="prompt" value="$prompt"/>
  <Image name="picture" value="$image"/>
  <Header value="{ASK_TYPE}"/>
  <Choices name="{STUDIO_TYPE}" toName="picture" choice="single-radio" required="true">
    <Choice value="object"/>
    <Choice value="attribute"/>
    <Choice value="relationship"/>
  </Choices>
  <Header value="{ASK_DESCRIPTION}"/>
  <TextArea name="{STUDIO_DESCRIPTION}" toName="picture" maxSubmissions="1" required="true"/>
  <Header value="{ASK_RATING}"/>
  <Number name="{STUDIO_RATING}" toName="picture" min="1" max="5" step="0.1" required="true"/>
</View>
"""
RATIONALE_LABELS = f"""<View>
  <Header value="{ASK_RATIONALE}"/>
  <Text name="prompt" value="$prompt"/>
  <Image name="picture" value="$image"/>
  <RectangleLabels name="{BOX}" toName="picture" canRotate="false">
    <Label value="object"/>
  </RectangleLabels>
  <TextArea name="{NAME}" toName="picture" perRegion="true" maxSubmissions="1" required="true"
    placeholder="the object's name"/>
  <TextArea name="{ATTRIBUTES}" toName="picture" perRegion="true" placeholder="its attributes, with commas between"/>
  <TextArea name="{RELATIONSHIPS}" toName="picture" placeholder="(object, relationship, object), one a line"/>
</View>
"""


def scale_task(task_id: str, picture: str, unit: Unit, more: dict[str, Any]) -> dict[str, Any]:
    """A task of Scale's tasks.json, as published; `more` goes into its metadata."""
    return {
        "task_id": task_id,
        "type": "textcollection",
        "status": "pending",
        "instruction": f"Prompt word: {unit.word}",
        "params": {"fields": list(_FIELDS), "attachments": [{"type": "image", "content": f"pictures/{picture}"}]},
        "metadata": {"filename": picture, "unit": asdict(unit), **more},
        "responseHistory": [],
    }


def studio_task(
    task_id: str, picture: str, unit: Unit, prompt: str, url: str, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A task that Label Studio imports; `size` is the image's, (width, height), where boxes are drawn on a picture that
    may be smaller."""
    return {
        "data": {
            "image": f"{url}{picture}",
            "filename": picture,
            "prompt": prompt,
            "task_id": task_id,
            "unit": asdict(unit),
            **({"width": size[0], "height": size[1]} if size else {}),
        }
    }
