"""Modules whose import registers the parts of this room."""

from multimodal_zoo.data import augment as augment
from multimodal_zoo.data import augment_colour as augment_colour
from multimodal_zoo.data import benchmark_set as benchmark_set
from multimodal_zoo.data import captions as captions
from multimodal_zoo.data import class_folders as class_folders
from multimodal_zoo.data import clip_benchmark as clip_benchmark
from multimodal_zoo.data import emoji_pairs as emoji_pairs
from multimodal_zoo.data import emoji_texts as emoji_texts
from multimodal_zoo.data import export as export
from multimodal_zoo.data import folder_pairs as folder_pairs
from multimodal_zoo.data import folder_pictures as folder_pictures
from multimodal_zoo.data import image_text_data as image_text_data
from multimodal_zoo.data import masked_images as masked_images
from multimodal_zoo.data import masking as masking
from multimodal_zoo.data import media as media
from multimodal_zoo.data import mixture as mixture
from multimodal_zoo.data import multi_view as multi_view
from multimodal_zoo.data import order as order
from multimodal_zoo.data import processor as processor
from multimodal_zoo.data import synonyms as synonyms
from multimodal_zoo.data import text_augment as text_augment
from multimodal_zoo.data import text_views as text_views
from multimodal_zoo.data import transforms as transforms
from multimodal_zoo.data import video_text_data as video_text_data
from multimodal_zoo.data import webdataset_pairs as webdataset_pairs
from multimodal_zoo.data import webdataset_videos as webdataset_videos
