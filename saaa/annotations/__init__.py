"""People's answers about attributions: read tolerantly, and joined to a Model ASG. No torch."""

from saaa.annotations.answers import Answers, read_answers
from saaa.annotations.content import Content
from saaa.annotations.model_asg import ModelAsg, RatedObject, RatedRelationship, Relevance, model_asgs
from saaa.annotations.ratings import Answer, AnswerRejected, Problem, Rating, Rationale, Unit
from saaa.annotations.readers import READERS, Reader

__all__ = [
    "READERS",
    "Answer",
    "AnswerRejected",
    "Answers",
    "Content",
    "ModelAsg",
    "Problem",
    "RatedObject",
    "RatedRelationship",
    "Rating",
    "Rationale",
    "Reader",
    "Relevance",
    "Unit",
    "model_asgs",
    "read_answers",
]
