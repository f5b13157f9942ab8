"Pictures that carry a feeling: generate, understand, feed back"
import os

__version__ = "0.1.0"

# read by OpenMP when PyTorch is first imported; see the page on the system
if 'OMP_WAIT_POLICY' not in os.environ: os.environ.setdefault('GOMP_SPINCOUNT', '3000')

_home = dict(Affect='core', Prompt='core', Judgement='core', EmoFeedback='pipeline')
__all__ = list(_home)

def __getattr__(name):
    'Fetch the front-door names when first asked for, so that `import emofeedback` stays instant'
    if name not in _home: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    return getattr(import_module(f'{__name__}.{_home[name]}'), name)

def __dir__(): return sorted(set(globals()) | set(__all__))
