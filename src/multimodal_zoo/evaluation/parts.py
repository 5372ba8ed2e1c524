"""Imports that register this room's parts."""

from multimodal_zoo.evaluation import captioning as captioning
from multimodal_zoo.evaluation import class_vectors as class_vectors
from multimodal_zoo.evaluation import drawn_pictures as drawn_pictures
from multimodal_zoo.evaluation import drawn_suite as drawn_suite
from multimodal_zoo.evaluation import linear_probe as linear_probe
from multimodal_zoo.evaluation import prompt_suites as prompt_suites
from multimodal_zoo.evaluation import published as published
from multimodal_zoo.evaluation import reconstruction as reconstruction
from multimodal_zoo.evaluation import retrieval as retrieval
from multimodal_zoo.evaluation import robustness as robustness
from multimodal_zoo.evaluation import samples as samples
from multimodal_zoo.evaluation import vqa as vqa
from multimodal_zoo.evaluation import vqa_questions as vqa_questions
from multimodal_zoo.evaluation import vqa_scores as vqa_scores
from multimodal_zoo.evaluation import vqa_uploads as vqa_uploads
from multimodal_zoo.evaluation import zero_shot as zero_shot
