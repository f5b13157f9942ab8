'The making of the mini judges: eyes that learn, stages that are cut off and go on, processes that stop together'
import signal
import subprocess
import sys
import time

import pytest
import torch
from diffusers import AutoencoderKL

import emofeedback.make.judge as judge_module
from emofeedback.images import to_pil
from emofeedback.make.all import MiniConfig, save_judge, train_mini
from emofeedback.make.eyes import Probe, dense_labels, dense_loss, labelled_views, pretrain_eyes, visual_tokens
from emofeedback.make.judge import MiniExamples, fit_judge
from emofeedback.make.models import painted, pixels
from emofeedback.mini.models import bundled, tiny_judge
from emofeedback.mini.scenes import Scenes, affect_of, colour_stats, factors_of
from emofeedback.runs import lock_file
from emofeedback.system import quiet
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.understanding.sft import PixelBank

SMALL = dict(vision=(2, 96), language=(2, 128))
TINY = MiniConfig(pictures=200, captions=64, vae=2, tower=2, generator=2, clip=2, oracle=2, eyes=2, reading=2, both=2,
                  judge_cold=2, describer=2, tried=1, adviser=1, adapters=1, familiar=1)

@pytest.fixture(scope='module')
def data(): return painted(200, 2)

@pytest.fixture(scope='module')
def views(data):
    with quiet(): vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae')
    return labelled_views(data, vae)

@pytest.fixture(scope='module')
def bank(views): return PixelBank(tiny_judge()[1], pixels(views))

def same_weights(a, b): return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))

class Cut(Exception): 'The machine went off'

class CutBank(PixelBank):
    'A bank that fails at one of its calls'
    def __init__(self, bank, after):
        vars(self).update(vars(bank))
        self.left = after

    def values(self, rows):
        self.left -= 1
        if self.left<0: raise Cut
        return super().values(rows)

def test_labels_are_those_of_the_pixels_shown(data, views):
    order = torch.cat([torch.arange(200)[::2], torch.arange(200)[1::2]])
    shown = Scenes(views['content'].numpy(), views['attrs'].numpy(), None)
    assert torch.equal(views['va'], affect_of(colour_stats(pixels(views)), factors_of(shown)))
    for k in ('content', 'attrs', 'kind'): assert torch.equal(views[k], data[k][order])
    changed = (views['x']!=data['x'][order]).flatten(1).any(1)
    moved = (views['va']-data['va'][order]).abs().amax(1)
    assert changed[100:].all() and not changed[:100].all() # all went through the VAE; some renders are as painted
    assert (moved[changed]>1e-3).float().mean()>.9

def test_a_bank_gives_what_the_processor_gives(views, bank):
    direct = tiny_judge()[1].image_processor(to_pil(pixels(views)[:20]), return_tensors='pt')
    assert torch.equal(bank.values(range(20)), direct['pixel_values'])
    assert torch.equal(bank[7].values, bank.values([7])) and torch.equal(bank.grid[:20], direct['image_grid_thw'])

def test_eyes_learn_and_go_on_where_they_stopped(tmp_path, monkeypatch, views, bank):
    monkeypatch.setattr('emofeedback.make.eyes.fit', with_states(pretrain_eyes.__globals__['fit']))
    def train(folder, bank, seed=0):
        model, _ = tiny_judge(seed=0, **SMALL)
        with quiet(): return model, pretrain_eyes(model, bank, views, 24, 8, seed, folder)
    @torch.no_grad()
    def error(model, probe):
        return dense_loss(probe(visual_tokens(model, bank, range(200))), dense_labels(views)).item()
    whole, probe = train(tmp_path/'whole', bank)
    blind, _ = tiny_judge(seed=0, **SMALL)
    assert error(whole, probe)<.9*error(blind, Probe(128)) # all of it within the warm-up
    with pytest.raises(Cut): train(tmp_path/'cut', CutBank(bank, 15))
    again, its_probe = train(tmp_path/'cut', CutBank(bank, 14)) # the ten saved ones are not done again
    assert same_weights(whole, again) and same_weights(probe, its_probe)
    with pytest.raises(FileExistsError, match='seed is 0, not 1'): train(tmp_path/'cut', bank, 1)

def with_states(fit):
    'The training loop with a state every ten updates'
    def more_often(*args, **how): return fit(*args, every=10, **how)
    return more_often

def test_ctrl_c_never_passes_for_a_finished_stage(tmp_path, monkeypatch, views, bank):
    def train(folder):
        model, processor = tiny_judge(seed=0, **SMALL)
        with quiet(): return fit_judge(model, processor, bank, views, folder, 4, 2)[0]
    sft, call = judge_module.sft, MiniExamples.__call__
    monkeypatch.setattr(judge_module, 'sft', lambda *a, **how: sft(*a, save_every=2, progress=False, **how))
    whole, left = train(tmp_path/'whole'), [3]
    def interrupted(self, rng, n):
        left[0] -= 1
        if left[0]==0: raise KeyboardInterrupt
        return call(self, rng, n)
    monkeypatch.setattr(MiniExamples, '__call__', interrupted)
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'cut') # in the third update of reading
    assert not (tmp_path/'cut/both').exists()
    left[0] = 4
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'cut') # two are left of reading: in the second of both
    assert (tmp_path/'cut/both').exists()
    assert same_weights(whole, train(tmp_path/'cut'))

def test_half_the_space_for_the_same_weights(tmp_path):
    model, processor = tiny_judge(seed=0, **SMALL)
    exact = {k: v.clone() for k, v in model.state_dict().items()}
    with quiet():
        save_judge((model, processor), tmp_path)
        loaded = LVLMJudge.from_pretrained(tmp_path).model
    assert {p.dtype for p in loaded.parameters()}=={torch.float32}
    for k, v in loaded.state_dict().items(): torch.testing.assert_close(v, exact[k].bfloat16().float(), rtol=0, atol=0)
    assert (tmp_path/'model.safetensors').stat().st_size<2.1*sum(p.numel() for p in loaded.parameters())+20_000

def test_stages_side_by_side(tmp_path):
    heard = []
    train_mini(tmp_path, ['tower1', 'tower0'], TINY, heard.append)
    assert sorted(line.split(':')[0] for line in heard)==['tower0', 'tower1']
    train_mini(tmp_path, ['tower1', 'tower0'], TINY, heard.append)
    assert heard[2:]==['tower1 is finished', 'tower0 is finished']
    with pytest.raises(ChildProcessError, match=r'stage generator failed \(1\): read .*generator.log'):
        train_mini(tmp_path, ['generator'], TINY, heard.append)
    assert len(heard)==4 and 'vae' in (tmp_path/'work/generator.log').read_text()

def test_a_processes_end_is_that_of_its_stages(tmp_path):
    code = (f'from emofeedback.make.all import MiniConfig, train_mini\n'
            f'train_mini({str(tmp_path)!r}, ["tower0", "tower1"], MiniConfig(captions=64, tower=100_000))')
    process = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL, # a shell may ignore Ctrl-C
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    towers = [tmp_path/'work'/k for k in ('tower0', 'tower1')]
    until(lambda: all((t/'run.json').exists() for t in towers))
    with pytest.raises(BlockingIOError): lock_file(towers[0]/'.lock')
    process.send_signal(signal.SIGINT) # to this one only, as `kill -INT` does
    assert process.wait(30)!=0
    for folder in (tmp_path, *towers): lock_file(folder/'.lock').close() # nobody works there any more

def until(true, seconds=120):
    'Wait for something, but not for ever'
    end = time.monotonic()+seconds
    while not true():
        assert time.monotonic()<end
        time.sleep(.1)
