"Pictures that carry a feeling: generate, understand, feed back"
import os

__version__ = "0.1.0"

# read by OpenMP when PyTorch is first imported; see the page on the system
if 'OMP_WAIT_POLICY' not in os.environ: os.environ.setdefault('GOMP_SPINCOUNT', '3000')

_names = { # module -> its names at the front door
    'core': 'Affect Prompt Judgement Round Rewards Generator Judge Adviser Reward Objective',
    'affect': 'EMOTIONS grid path nearest_emotion nearest_word plot_plane',
    'images': 'read_image to_pil image_grid',
    'data.lexicon': 'read_lexicon published',
    'data.labels': 'Row',
    'data.tables': 'read_table read_labels',
    'data.dataset': 'Rows',
    'understanding.questions': 'Suggestion',
    'generation.prompts': 'scene_sampler row_sampler',
    'generation.rewards': 'EmotionReward',
    'generation.objectives': 'GRPO Matching',
    'feedback.result': 'Feedback',
    'evaluation.evaluate': 'evaluate compare summary grid_prompts va_grid plot_va_grid',
    'recipes': 'mini_rf mini_flow_grpo mini_judge one_gpu',
    'pipeline': 'EmoFeedback mini_oracle',
    'train': 'train_generator train_judge train_adviser',
    'widgets.dial': 'Dial'}
_home = {name: module for module,names in _names.items() for name in names.split()}
__all__ = list(_home)

def __getattr__(name):
    'Fetch the front-door names when first asked for, so that `import emofeedback` stays instant'
    if name not in _home: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    return getattr(import_module(f'{__name__}.{_home[name]}'), name)

def __dir__(): return sorted(set(globals()) | set(__all__))
