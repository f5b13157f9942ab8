'Nothing invented: pictures and rewards that are no numbers are unreadable, and a run that cannot learn says why'
import pytest
import torch

from emofeedback.core import Affect, Prompt
from emofeedback.generation.rewards import score
from emofeedback.generation.sd3 import SD3
from emofeedback.images import to_pil
from emofeedback.mini.models import tiny_pipeline
from emofeedback.pipeline import EmoFeedback

BAD = torch.nan, torch.inf, -torch.inf

def generator(seed=0) -> SD3: return SD3(tiny_pipeline(seed=seed), keep_empty_t5=False)

def redness(images, prompts): return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))

def broken(gen:SD3, where:str, value:float) -> SD3:
    'A generator that overflows in its adapters or its VAE'
    last = gen.pipe.vae.decoder.conv_out.weight if where=='vae' else gen.add_lora(2, 2).params()[0]
    with torch.no_grad(): last.view(-1)[0] = value
    return gen

# ---- pictures --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('value', BAD)
def test_no_picture_is_made_of_what_is_no_number(value):
    x = torch.full((2, 3, 4, 4), .5)
    x[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match='not finite'): to_pil(x)

@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('where', ['vae', 'adapters'])
def test_a_generator_that_overflows_draws_nothing(where, value):
    gen = broken(generator(), where, value)
    with pytest.raises(RuntimeError, match='not finite.*another dtype.*--lora'): gen.sample(['a lake'], 2)

@pytest.mark.parametrize('where', ['vae', 'adapters'])
@pytest.mark.parametrize('rounds', [0, 1, 2])
def test_a_pipeline_that_overflows_draws_nothing(where, rounds):
    emo = EmoFeedback.mini(base=True)
    broken(emo.gen, where, torch.nan)
    with pytest.raises(RuntimeError, match='not finite.*another dtype.*--lora'):
        emo('a lake', 1., 1., rounds=rounds, images=2, progress=False)

def test_a_broken_picture_is_never_scored():
    images, seen = torch.rand(4, 3, 8, 8), []
    images[1, 2, 0, 0], images[3] = torch.nan, torch.inf
    def noted(some, prompts):
        seen.append((some.isfinite().all().item(), [p.content for p in prompts]))
        return redness(some, prompts)
    rewards = score(dict(red=noted), dict(red=1.), images, [Prompt(o, Affect(0, 0)) for o in 'abcd'])
    assert seen==[(True, ['a', 'c'])] and rewards.total().isnan().tolist()==[False, True, False, True]
    assert rewards.broken==2 and rewards.readable()==.5
    dark = score(dict(red=noted), dict(red=1.), images*torch.nan, [Prompt(o, Affect(0, 0)) for o in 'abcd'])
    assert dark.broken==4 and dark.readable()==0 and len(seen)==1
