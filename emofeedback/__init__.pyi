# What `__init__.py` fetches when first asked for, for type checkers and editors; tests/test_repo.py compares them
from typing import Any

from .core import (
    Affect as Affect, Prompt as Prompt, Judgement as Judgement, Round as Round, Rewards as Rewards,
    Generator as Generator, Judge as Judge, Adviser as Adviser, Reward as Reward, Objective as Objective)
from .affect import (
    EMOTIONS as EMOTIONS, grid as grid, path as path, nearest_emotion as nearest_emotion,
    nearest_word as nearest_word, plot_plane as plot_plane)
from .images import read_image as read_image, to_pil as to_pil, image_grid as image_grid
from .data.lexicon import read_lexicon as read_lexicon, published as published
from .data.labels import Row as Row
from .data.tables import read_table as read_table, read_labels as read_labels
from .data.dataset import Rows as Rows
from .understanding.questions import Suggestion as Suggestion
from .generation.prompts import scene_sampler as scene_sampler, row_sampler as row_sampler
from .generation.rewards import EmotionReward as EmotionReward
from .evaluation.evaluate import (
    evaluate as evaluate, compare as compare, summary as summary, grid_prompts as grid_prompts, va_grid as va_grid,
    plot_va_grid as plot_va_grid)
from .recipes import (
    mini_rf as mini_rf, mini_flow_grpo as mini_flow_grpo, mini_judge as mini_judge, one_gpu as one_gpu)
from .pipeline import mini_oracle as mini_oracle
from .train import train_generator as train_generator, train_judge as train_judge, train_adviser as train_adviser

__version__:str

# EmoFeedback, Feedback, Dial, GRPO, Matching: a type checker cannot see what `@patch` adds to them
def __getattr__(name:str) -> Any: ...
