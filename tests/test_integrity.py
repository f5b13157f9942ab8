'Nothing invented: pictures and rewards that are no numbers are unreadable, and a run that cannot learn says why'
import hashlib
import io
import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emofeedback.core import Affect, Prompt
from emofeedback.generation.objectives import GRPO, Matching
from emofeedback.generation.preference import ClipScore
from emofeedback.generation.prompts import RowSampler, scene_sampler
from emofeedback.generation.rewards import score
from emofeedback.generation.sd3 import SD3
from emofeedback.generation.state import RFConfig, TrainState
from emofeedback.generation.train import IDLE, train
from emofeedback.images import to_pil
from emofeedback.mini.models import clip_tokenizer, tiny_clip, tiny_pipeline
from emofeedback.pipeline import EmoFeedback
from emofeedback.system import quiet

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

# ---- runs in which nothing can be learned ----------------------------------------------------------------------------

SMALL = RFConfig(Matching(draws=1, beta=0), prompts=2, group_size=2, steps=2, rank=2, alpha=4, lr=1e-3, save_every=1)

def scenes(n, rng): return [Prompt(f'a lake {rng.integers(9)}', Affect(0, 0)) for _ in range(n)]

def run(out, reward=redness, cfg=SMALL, updates=3, gen=None, weight=1., **how) -> tuple[SD3, list]:
    gen = gen or generator()
    return gen, train(gen, dict(red=reward), dict(red=weight), scenes, cfg, out, updates=updates, progress=False, **how)

def saved(out) -> dict[str, bytes]:
    'What is on disk of a run: states, adapters, log'
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in out.rglob('*') if f.is_file() and f.name!='.lock'}

def finite(out) -> bool:
    'Whether everything that was saved is finite'
    states = [torch.load(f, weights_only=True) for f in out.glob('state-*.pt')]
    tensors = [o for s in states for k in ('params', 'ema') for o in s[k]]
    tensors += [o for f in out.rglob('*.safetensors') for o in load_file(f).values()]
    return all(o.isfinite().all() for o in tensors)

def later(reward, after:int):
    'A reward that does its work at first'
    calls = []
    def turned(images, prompts):
        calls.append(1)
        return redness(images, prompts) if len(calls)<=after else reward(images, prompts)
    return turned

def blind(images, prompts): return [None]*len(prompts)
def constant(images, prompts): return torch.ones(len(prompts))
def nearly(images, prompts): return 1+1e-9*torch.arange(len(prompts), dtype=torch.float64)

@pytest.mark.parametrize('reward, why', [(blind, 'no picture could be scored'), (constant, 'no two siblings'),
                                         (nearly, 'no two siblings')])
def test_a_run_that_never_learns_fails(tmp_path, reward, why):
    with pytest.raises(RuntimeError, match=f'nothing was learned in 3 updates.*{why}'): run(tmp_path/'r', reward)
    assert not list((tmp_path/'r').glob('state-*')) and not (tmp_path/'r/lora').exists()

@pytest.mark.parametrize('reward', [blind, constant])
def test_a_run_that_learns_no_more_fails_and_keeps_what_it_had(tmp_path, reward):
    run(tmp_path/'whole', updates=2)
    with pytest.raises(RuntimeError, match=f'nothing was learned in {IDLE} updates'):
        run(tmp_path/'r', later(reward, 2), updates=30)
    whole, kept = saved(tmp_path/'whole'), saved(tmp_path/'r')
    assert sorted(f[:14] for f in kept if f.startswith('state'))==['state-00000001', 'state-00000002']
    assert kept['lora/pytorch_lora_weights.safetensors']==whole['lora/pytorch_lora_weights.safetensors']
    _, log = run(tmp_path/'r', updates=4) # mended: it goes on
    assert [o['update'] for o in log]==[1, 2, 3, 4]

def test_a_dark_update_or_two_are_no_failure(tmp_path):
    'Killed in the midst of them, or not: the same'
    dark = [redness, blind, redness, blind, blind, redness]
    def rewards(dies=None):
        turn = iter(dark)
        def reward(images, prompts): return next(turn)(images, prompts)
        return reward
    _, log = run(tmp_path/'r', rewards(), updates=6)
    assert [o['readable'] for o in log]==[1, 0, 1, 0, 0, 1] and log[1]['reward/red'] is None
    assert [json.loads(o) for o in (tmp_path/'r/log.jsonl').read_text().splitlines()]==log
    _, ends_dark = run(tmp_path/'end', rewards(), updates=5)
    assert len(ends_dark)==5 and len((tmp_path/'end/log.jsonl').read_text().splitlines())==5

def test_pictures_that_become_no_pictures_end_the_run(tmp_path):
    gen = generator()
    def break_it(gen, row):
        if row['update']==2: broken(gen, 'vae', torch.nan)
    with pytest.raises(RuntimeError, match='nothing was learned in 10.*pictures are not finite.*another dtype'):
        run(tmp_path/'r', updates=30, gen=gen, on_update=break_it)
    assert finite(tmp_path/'r')

@pytest.mark.parametrize('objective', [SMALL.objective, GRPO(1, 1, kind='exact')])
def test_a_picture_that_overflows_is_counted_and_teaches_nothing(tmp_path, objective):
    gen = generator()
    gen.pipe.vae.decoder.register_forward_hook(lambda m, x, y: y.index_fill(0, torch.tensor([1]), torch.inf))
    _, log = run(tmp_path/'r', cfg=replace(SMALL, objective=objective, group_size=3), gen=gen)
    assert [(o['broken'], round(o['readable'], 3)) for o in log]==[(1, .833)]*3 and log[-1]['grad']>0
    assert finite(tmp_path/'r')

@pytest.mark.parametrize('what', [dict(lr=1e6), dict(lr=torch.inf), dict(lr=torch.nan), dict(max_norm=torch.nan),
                                  dict(ema=torch.nan), dict(ema=1.), dict(adv_clip=torch.nan), dict(alpha=torch.inf)])
def test_settings_that_ruin_are_refused(what):
    with pytest.raises(ValueError, match=f'{next(iter(what))}=.*give a number'): replace(SMALL, **what)

@pytest.mark.parametrize('where', ['params', 'ema', 'lr', 'max_norm'])
def test_ruined_weights_never_replace_good_ones(tmp_path, where):
    'Something spoils the run behind its back after the second update'
    run(tmp_path/'whole', updates=2)
    made = []
    class Watched(TrainState):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)
    def spoil(gen, row):
        if row['update']<2: return
        s = made[0]
        if where=='lr': s.set_lr = lambda progress: [g.update(lr=torch.inf) for g in s.opt.param_groups]
        elif where=='max_norm': object.__setattr__(s.cfg, 'max_norm', torch.nan)
        else: s.ema[0].view(-1)[0] = torch.nan
    def spoilt(images, prompts):
        if where=='params' and made[0].update==2:
            with torch.no_grad(): made[0].opt.state[made[0].params[0]]['exp_avg'].fill_(torch.nan)
        return redness(images, prompts)
    with pytest.MonkeyPatch.context() as m:
        m.setattr('emofeedback.generation.train.TrainState', Watched)
        with pytest.raises(RuntimeError, match='not finite.*what was saved before is kept'):
            run(tmp_path/'r', spoilt, replace(SMALL), updates=5, on_update=spoil)
    whole, kept = saved(tmp_path/'whole'), saved(tmp_path/'r')
    lora = 'lora/pytorch_lora_weights.safetensors'
    assert kept[lora]==whole[lora] and finite(tmp_path/'r')

@pytest.mark.parametrize('part', ['params', 'ema', 'opt'])
def test_a_state_that_holds_nan_is_not_gone_on_from(tmp_path, part):
    run(tmp_path/'r', updates=2)
    file = max((tmp_path/'r').glob('state-*.pt'))
    state = torch.load(file, weights_only=True)
    (state['opt']['state'][0]['exp_avg'] if part=='opt' else state[part][0]).view(-1)[0] = torch.nan
    torch.save(state, buffer := io.BytesIO())
    file.unlink()
    digest = hashlib.blake2b(buffer.getvalue(), digest_size=8).hexdigest()
    (tmp_path/f'r/state-00000002-{digest}.pt').write_bytes(buffer.getvalue())
    before = saved(tmp_path/'r')
    with pytest.raises(RuntimeError, match='not finite.*delete its newest state'): run(tmp_path/'r', updates=4)
    assert {k: o for k,o in saved(tmp_path/'r').items() if k!='log.jsonl'}=={
        k: o for k,o in before.items() if k!='log.jsonl'}
    (tmp_path/f'r/state-00000002-{digest}.pt').unlink()
    assert len(run(tmp_path/'r', updates=4)[1])==4

def test_a_broken_start_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match='not finite.*change --lora'):
        run(tmp_path/'r', gen=broken(generator(), 'adapters', torch.nan))

# ---- odd rewards -----------------------------------------------------------------------------------------------------

def one_group(value): return lambda x: [value]*2+x[2:].tolist()
def first(value): return lambda x: torch.cat([torch.tensor([value], dtype=torch.float64), x[1:].double()])

READ = dict( # name -> what is made of the true reward, and which share can be read
    tensor=(lambda x: x, 1), half=(lambda x: x.half(), 1), bfloat16=(lambda x: x.bfloat16(), 1),
    double=(lambda x: x.double(), 1), array=(lambda x: x.numpy(), 1), list=(lambda x: x.tolist(), 1),
    tuple=(lambda x: tuple(x.tolist()), 1), scalars=(list, 1), gradient=(lambda x: x.clone().requires_grad_(), 1),
    scalars_with_gradient=(lambda x: list(x.clone().requires_grad_()), 1), numpy_scalars=(lambda x: [*x.numpy()], 1),
    integers=(lambda x: (1e4*x).long(), 1), bools=(lambda x: x>x.median(), 1), large=(lambda x: x*1e30, 1),
    level=(lambda x: x.double()+1e9, 1), parts=(lambda x: dict(odd=x, more=-x), 1),
    outlier=(first(1e30), 1), outlier_below=(first(-1e38), 1), none=(one_group(None), .5),
    nan=(one_group(torch.nan), .5), inf=(one_group(torch.inf), .5), minus_inf=(one_group(-torch.inf), .5),
    beyond_float32=(one_group(1e39), .5), one_nan=(first(torch.nan), .75), one_inf=(first(torch.inf), .75),
    masked=(lambda x: np.ma.masked_array(x.numpy(), [1, 0, 0, 0]), .75))

REFUSED = dict( # name -> what is made of the true reward
    nothing=lambda x: None, number=lambda x: 1., word=lambda x: 'good', words=lambda x: ['good']*len(x),
    digits=lambda x: ['0.5']*len(x), mixed=lambda x: ['bad', *x[1:].tolist()], bytes=lambda x: b'good',
    complex=lambda x: x.to(torch.complex64), complex_list=lambda x: [1j*o for o in x.tolist()],
    complex_scalars=lambda x: list(x.to(torch.complex64)), short=lambda x: x[:-1], long=lambda x: torch.cat([x, x]),
    empty=lambda x: x[:0], mean=lambda x: x.mean(), column=lambda x: x[:, None], row=lambda x: x[None],
    ragged=lambda x: [[1.]]*3+[[1., 2.]], set=lambda x: set(x.tolist()), generator=lambda x: (o for o in x),
    function=lambda x: len, object=lambda x: [object()]*len(x), huge=lambda x: [10**400]*len(x),
    no_parts=lambda x: {}, unnamed=lambda x: {0: x}, bad_part=lambda x: dict(odd=x, more=None),
    dates=lambda x: np.array(['2020-01-01']*len(x), 'datetime64[D]'), raises=lambda x: 1/0)

def odd_run(out, make, updates=2):
    def reward(images, prompts): return make(redness(images, prompts))
    gen = generator()
    return train(gen, dict(odd=reward), dict(odd=1.), scenes, SMALL, out, updates=updates, progress=False)

@pytest.mark.parametrize('name', READ)
def test_odd_rewards_that_can_be_read(tmp_path, name):
    make, share = READ[name]
    log = odd_run(tmp_path/'r', make)
    assert [o['readable'] for o in log]==[share]*2 and finite(tmp_path/'r') and any('loss' in o for o in log)
    assert all('NaN' not in o and 'Infinity' not in o for o in (tmp_path/'r/log.jsonl').read_text().splitlines())

@pytest.mark.parametrize('name', REFUSED)
def test_odd_rewards_that_are_refused(tmp_path, name):
    with pytest.raises((ValueError, RuntimeError), match="the reward 'odd") as e: odd_run(tmp_path/'r', REFUSED[name])
    assert '\n' not in str(e.value) and not list((tmp_path/'r').glob('state-*'))

@pytest.mark.parametrize('weights', [dict(odd=torch.nan), dict(odd=torch.inf), dict(odd=0.), {}, dict(other=1.)])
def test_odd_weights_are_refused(tmp_path, weights):
    with pytest.raises(ValueError, match='weight'):
        train(generator(), dict(odd=redness), weights, scenes, SMALL, tmp_path/'r', updates=1, progress=False)

# ---- the log ---------------------------------------------------------------------------------------------------------

def test_a_log_is_cut_where_its_state_was_made(tmp_path):
    run(tmp_path/'r', updates=3)
    file = tmp_path/'r/log.jsonl'
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(''.join(lines)+lines[-1].replace('"update": 3', '"update": 4')+'{"update": 5, "pic')
    _, log = run(tmp_path/'r', updates=5)
    assert [o['update'] for o in log]==[1, 2, 3, 4, 5]==[json.loads(o)['update'] for o in file.read_text().splitlines()]

def test_a_lost_log_does_not_stop_the_run(tmp_path):
    run(tmp_path/'r', updates=3)
    (tmp_path/'r/log.jsonl').unlink()
    with pytest.warns(UserWarning, match='has lost 3 of 3 rows'): _, log = run(tmp_path/'r', updates=4)
    assert [o['update'] for o in log]==[4] and len((tmp_path/'r/log.jsonl').read_text().splitlines())==1

# ---- killed and gone on: the same ------------------------------------------------------------------------------------

WORDS = 'a lake by a forest', 'a city at night', 'a dog on the beach', 'an old house', 'the sea', 'a road in the rain'

def row_prompts(n, rng):
    'A source that comes back to its prompts'
    rows = [Prompt(o, Affect(k/2-1, 1-k/2), f'{o}, valence {k/2-1}') for k,o in enumerate(WORDS)]
    return RowSampler(tuple(rows))(n, rng)

SOURCES = dict(fresh=scene_sampler(WORDS), rows=row_prompts)
OBJECTIVES = dict(matching=Matching(beta=.03), grpo=GRPO(1, 2, noise_level=1.4, kind='exact', same_noise=True))

def without_clock(log): return [{k: o for k,o in row.items() if k!='seconds' and not k.endswith('_s')} for row in log]

@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize('objective', OBJECTIVES)
def test_interrupted_and_whole_are_the_same_bytes(tmp_path, one_thread, source, objective):
    'The process dies in a reward of update 5 of 8, and its successor remembers no text'
    tok = clip_tokenizer()
    cfg = RFConfig(OBJECTIVES[objective], prompts=3, group_size=3, steps=3, rank=2, lr=1e-2, decay=.5, save_every=2)
    def go_on(out, dies=0):
        clip, calls = ClipScore(tiny_clip(tok), tok), []
        def fits(images, prompts):
            calls.append(1)
            if len(calls)==dies: raise OSError('the power is gone')
            return clip(images, prompts)+10*redness(images, prompts)
        return train(generator(), dict(fits=fits), dict(fits=1.), SOURCES[source], cfg, out, updates=8, progress=False)
    whole = go_on(tmp_path/'whole')
    with pytest.raises(RuntimeError, match="reward 'fits' failed on 9 pictures: the power is gone"):
        go_on(tmp_path/'parts', dies=5)
    parts = go_on(tmp_path/'parts')
    a, b = saved(tmp_path/'whole'), saved(tmp_path/'parts')
    lora = 'lora/pytorch_lora_weights.safetensors'
    assert a[lora]==b[lora] and without_clock(whole)==without_clock(parts)
    assert without_clock(map(json.loads, b['log.jsonl'].splitlines()))==without_clock(parts)

def test_the_clock_does_not_change_what_is_learned(tmp_path):
    'A budget of updates and time: the learning rate falls with the updates'
    cfg = replace(SMALL, decay=.5)
    found = []
    for seconds in (None, 1e3, 1e9):
        run(tmp_path/str(seconds), cfg=cfg, updates=4, seconds=seconds)
        found.append(saved(tmp_path/str(seconds))['lora/pytorch_lora_weights.safetensors'])
    assert found[0]==found[1]==found[2]

@pytest.mark.parametrize('budget', [dict(), dict(seconds=torch.nan), dict(seconds=-1.), dict(updates=-1)])
def test_no_budget_is_no_run(tmp_path, budget):
    with pytest.raises(ValueError, match='how long'): run(tmp_path/'r', **dict(updates=None) | budget)
    assert not (tmp_path/'r').exists()

def test_a_cache_is_bounded_in_bytes():
    gen = generator()
    one = gen.encode(['a lake'])
    each = sum(o.nbytes for o in gen._seen['a lake'])
    gen.cache = 3*each
    for k in range(9): gen.encode([f'a lake {k}', 'a lake'])
    assert len(gen._seen)<=3 and torch.equal(gen.encode(['a lake']).embeds, one.embeds)
    gen.cache = 0
    assert len(gen.encode([f'a lake {k}' for k in range(5)]))==5 and not gen._seen
    tok = clip_tokenizer()
    clip = ClipScore(tiny_clip(tok), tok, cache=300)
    assert clip.embed_texts(['a', 'b', 'a', 'c']).shape==(4, 64) and len(clip._seen)==1

# ---- adapters --------------------------------------------------------------------------------------------------------

def with_settings(file, **changes) -> None:
    'The file with other claims in its header'
    data = file.read_bytes()
    n = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8+n])
    claims = json.loads(header['__metadata__']['lora_adapter_metadata']) | changes
    header['__metadata__']['lora_adapter_metadata'] = json.dumps(claims)
    head = json.dumps(header).encode()
    file.write_bytes(len(head).to_bytes(8, 'little')+head+data[8+n:])

@pytest.mark.parametrize('claims', [{'r': 10**7}, {'rank_pattern': {'attn.to_q': 10**7}}, {'r': None}, {'r': 'many'},
                                    {'rank_pattern': [3]}])
def test_a_rank_that_no_tensor_has_is_refused_before_it_is_allocated(tmp_path, claims):
    generator().add_lora(2, 4).save(tmp_path)
    with_settings(tmp_path/'pytorch_lora_weights.safetensors', **{f'transformer.{k}': o for k,o in claims.items()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with quiet(), pytest.raises(ValueError, match='cannot be read.*give'): generator().load_lora(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before<2**18 # KB

def test_adapters_say_nothing_of_the_machine(tmp_path):
    gen = generator().add_lora(2, 4)
    gen.net.peft_config['default'].base_model_name_or_path = str(tmp_path/'secret')
    with quiet(): gen.save(tmp_path/'a')
    data = (tmp_path/'a/pytorch_lora_weights.safetensors').read_bytes()
    assert b'secret' not in data
