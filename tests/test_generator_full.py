'Reward feedback at full size, on scaled-down models of the real architectures, in one process and in two'
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emofeedback.core import Affect, Prompt
from emofeedback.data.prompts import with_target
from emofeedback.generation.objectives import GRPO, Matching
from emofeedback.generation.sd3 import SD3
from emofeedback.generation.state import RFConfig, TrainState
from emofeedback.generation.train import train
from emofeedback.recipes import one_gpu, paper_sd35m
from emofeedback.system import quiet

TARGETS = Affect(2, 1), Affect(-2, -1), Affect(0, 2), Affect(1, -2)
SCENES = 'a lake', 'a city', 'an old man on the beach', 'a forest'

def scenes(n, rng):
    k = rng.integers(4, size=n)
    return [Prompt(SCENES[i], TARGETS[i], with_target(SCENES[i], TARGETS[i])) for i in k]

def redness(images, prompts): return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))

def scaled_down(cfg:RFConfig, **changes) -> RFConfig:
    'A recipe with tiny numbers'
    small = dict(prompts=2, group_size=2, steps=6, rank=4, alpha=8, batch_size=2, decode_batch=2)
    return replace(cfg, **(small | changes))

def load(folder, dtype=torch.float32, **how) -> SD3:
    with quiet(): return SD3.from_pretrained(folder, dtype=dtype, size=64, **how)

def be_red(gen, cfg, out, updates=2, **how):
    return train(gen, dict(red=redness), dict(red=1.), scenes, cfg, out, updates=updates, progress=False, **how)

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', ['one_gpu', 'matching', 'paper'])
def test_recipes_train(sd35, tmp_path, dtype, name):
    objective = GRPO(window=2, window_end=2, beta=.01, distance='kl_dt', parts=2)
    cfg = dict(one_gpu=scaled_down(one_gpu().config), matching=scaled_down(one_gpu().config, objective=Matching()),
               paper=scaled_down(paper_sd35m().config, objective=objective))[name]
    gen = load(sd35, dtype, park=True)
    log = be_red(gen, cfg, tmp_path/'run', updates=4)
    assert len(log)==4 and log[-1]['grad']>0 and gen.size==64
    assert all(p.dtype==torch.float32 and p.isfinite().all() for p in gen.params())
    assert gen.net.dtype==dtype and any(p.abs().max()>0 for n,p in gen.net.named_parameters() if 'lora_B' in n)
    again = load(sd35, dtype, lora=tmp_path/'run/lora')
    assert all(map(torch.equal, again.params(), gen.params()))

def test_on_policy_ratio_is_one(sd35, tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        log = be_red(load(sd35, dtype), scaled_down(one_gpu().config), tmp_path/str(dtype), updates=3)
        assert all(o['ratio']==1 for o in log)

def test_made_for_1024_and_drawn_at_any_size(sd35):
    with quiet(): gen = SD3.from_pretrained(sd35)
    assert gen.size==1024 and gen.latent_shape==(16, 128, 128)
    assert gen.resize(64).latent_shape==(16, 8, 8)
    with pytest.raises(ValueError, match='give a multiple of 16 from 16 to 6144'): gen.resize(500)

def test_loaded_adapters_move(sd35, tmp_path):
    'In bfloat16 almost half of the numbers of a running average would stay where they are'
    gen = load(sd35, torch.bfloat16)
    gen.add_lora(4, 8)
    gen.save(tmp_path/'lora')
    s = TrainState(load(sd35, torch.bfloat16, lora=tmp_path/'lora'), RFConfig(rank=4))
    before = [p.clone() for p in s.ema]
    for p in s.params: p.grad = torch.randn_like(p)
    s.step()
    assert all(p.dtype==torch.float32 for p in s.params)
    assert torch.cat([(a!=b).flatten() for a,b in zip(before, s.ema)]).float().mean()>.95

def test_checkpointing_has_the_same_gradients(sd35):
    def gradients(checkpointing):
        gen = load(sd35, torch.bfloat16).add_lora(4, 8)
        if checkpointing: gen.checkpointing()
        for p in gen.params(): p.data += .05*torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
        x = gen.noise(2, torch.Generator().manual_seed(0))
        gen.velocity(x, torch.tensor(.5), gen.encode(['a lake', 'a city'])).pow(2).mean().backward()
        return [p.grad for p in gen.params()]
    assert all(map(torch.equal, gradients(False), gradients(True)))

def test_embeddings_wait_on_the_cpu_and_are_kept(sd35):
    gen = load(sd35, park=True)
    one = gen.encode(['a lake', 'a city'])
    assert all(o.device.type=='cpu' for pair in gen._seen.values() for o in pair)
    assert next(gen.pipe.text_encoder_3.parameters()).device.type=='cpu'
    gen._seen.clear()
    assert torch.equal(gen.encode(['a city']).embeds, one.embeds[1:]) # in other company the same bits

def test_the_public_kl(sd35):
    'As written in train_sd3.py: squared distance of the means over twice a variance without the length of the step'
    from emofeedback.core import Transition
    gen = load(sd35)
    s, level = gen.sigmas(10), .7
    x, y = torch.randn(2, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    for k in range(9):
        at = s[1] if s[k]==1 else s[k]
        theirs = ((x-y)**2).mean()/(2*((s[k]/(1-at)).sqrt()*level)**2)
        std = level*(s[k]*(s[k]-s[k+1])/(1-at)).sqrt()
        torch.testing.assert_close(Transition(x, std).kl(Transition(y, std)).mean()*(s[k]-s[k+1]), theirs)

def test_rewards_of_one_part_are_asked_while_the_next_is_drawn(sd35, tmp_path):
    import threading
    threads = []
    def noted(images, prompts):
        threads.append((threading.current_thread() is threading.main_thread(), len(prompts)))
        return redness(images, prompts)
    cfg = scaled_down(one_gpu().config, prompts=4, draw=2)
    log = train(load(sd35), dict(red=noted), dict(red=1.), scenes, cfg, tmp_path/'run', updates=1, progress=False)
    assert threads==[(False, 4), (True, 4)] and log[0]['readable']==1

TWO = '''
import sys
sys.path.insert(0, {tests!r})
import os
import test_generator_full
import torch
from test_generator_full import GRPO, Matching, RFConfig, be_red, redness
from emofeedback.generation.sd3 import SD3
from emofeedback.mini.models import tiny_pipeline
from emofeedback.system import process_share
out, objective, updates, dies = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
cfg = RFConfig(objective, prompts=4, group_size=4, steps=4, rank=4, alpha=8, lr=1e-3, save_every=2)
gen = SD3(tiny_pipeline(seed=0), keep_empty_t5=False)
if dies and process_share()[0]==1:
    def left(images, prompts, calls=[]):
        calls.append(1)
        if len(calls)==3: os._exit(9)
        return redness(images, prompts)
    test_generator_full.redness = left
log = be_red(gen, cfg, out, updates)
if process_share()[0]==0: torch.save([p.data for p in gen.params()], out+'.pt')
print(process_share(), [round(o['reward/red'], 6) for o in log])
'''

def together(tmp_path, name, objective, updates, processes=2, *dies) -> tuple[list, str]|None:
    'Parameters after a run in so many processes, and what they printed; None if it failed, as it should if one `dies`'
    script = tmp_path/'two.py'
    script.write_text(TWO.format(tests=str(Path(__file__).parent)))
    launch = ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(processes),
              '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', '0']
    how = launch if processes>1 else []
    env = os.environ | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    done = subprocess.run([sys.executable, *how, str(script), str(tmp_path/name), objective, str(updates), *dies],
                          env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode!=0)==bool(dies), done.stderr[-3000:]
    if dies: return None
    assert f'(0, {processes})' in done.stdout # there were so many
    return torch.load(tmp_path/f'{name}.pt', weights_only=True), done.stdout

@pytest.mark.parametrize('objective', ['Matching(draws=1)', 'GRPO(1, 2, kind="exact", same_noise=True)'])
def test_two_processes_learn_what_one_does(tmp_path, objective):
    one, told = together(tmp_path, 'one', objective, 3, processes=1)
    two, both = together(tmp_path, 'two', objective, 3)
    assert told.split(')', 1)[1].strip() in both # the same rewards, to six places
    for a,b in zip(one, two): torch.testing.assert_close(a, b, atol=1e-4, rtol=0) # three steps of .001
    if 'GRPO' in objective: return
    together(tmp_path, 'parts', objective, 2)
    resumed, _ = together(tmp_path, 'parts', objective, 3)
    for a,b in zip(two, resumed): torch.testing.assert_close(a, b, atol=1e-7, rtol=0)

def test_a_process_that_dies_ends_the_others_and_what_was_saved_goes_on(tmp_path):
    objective = 'Matching(draws=1)'
    whole, _ = together(tmp_path, 'whole', objective, 3)
    assert together(tmp_path, 'lost', objective, 3, 2, 'dies') is None
    assert [f.name[:14] for f in (tmp_path/'lost').glob('state-*.pt')]==['state-00000002']
    again, _ = together(tmp_path, 'lost', objective, 3)
    for a,b in zip(whole, again): torch.testing.assert_close(a, b, atol=1e-7, rtol=0)

def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path):
    env = os.environ | dict(WORLD_SIZE='2', RANK='0', HF_HUB_OFFLINE='1')
    for k in ('MASTER_ADDR', 'MASTER_PORT', 'LOCAL_RANK'): env.pop(k, None)
    command = [sys.executable, '-m', 'emofeedback', 'train-generator', '--out', str(tmp_path/'x'), '--updates', '1']
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode==1 and 'start them with `accelerate launch`' in done.stderr
    assert 'Traceback' not in done.stderr
