'Fault injection for the understanding wing: answers not to believe, folders not to load, runs that are cut off'
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emofeedback.affect import EMOTIONS, nearest_emotion
from emofeedback.core import HIGH, LOW, Affect, Judgement, Prompt
from emofeedback.data.prompts import read_target
from emofeedback.mini.models import tiny_judge
from emofeedback.understanding.grpo import GRPOSettings, grpo, rows_for_grpo
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.understanding.questions import Rate, Suggest, Suggestion
from emofeedback.understanding.rewards import completion_text
from emofeedback.understanding.sft import Collator, Example, sft

GOOD = Rate().reply(Affect(-1.2, .8), 'fear', 'a dark lake, fog')
ADVICE = Suggest().reply(Suggestion(.8, -.3, 'soft sun', 'a lake'), 'too dark')
ODD = ['NaN', '-NaN', 'Infinity', '-Infinity', '1e999', '-1e999', '9'*5000, '1e-400', 'null', 'true', '"1"', '[1]',
       '{}', '3.0000001', '-3.1', '+1', '0x1', '1_0', '١', '½', '']
SPICE = ['\x00', '\u202e', '\ud800', '🌊', '<answer>', '</answer>', '<think>', '</think>', '{', '}', '"', '\\', '\n',
         ',', 'NaN', '-', '9', 'é']

def believable(j):
    'Whatever a reader returns must be usable as it is'
    assert isinstance(j, Judgement)
    if j.affect is None: return
    assert LOW<=j.affect.v<=HIGH and LOW<=j.affect.a<=HIGH
    assert j.emotion is None or j.emotion in EMOTIONS

def usable(s):
    if s is None: return
    assert isinstance(s, Suggestion) and math.isfinite(s.valence) and math.isfinite(s.arousal)
    assert s.add.isprintable() and len(s.add)<=100 and ',' not in s.add
    assert s.prompt.isprintable() and len(s.prompt)<=400
    text = s.apply(Prompt('a lake by a forest', Affect(1, 1), 'a lake by a forest, fog, valence 1.4 arousal 0.3'))
    assert read_target(text) is not None and '\n' not in text
    text.encode('utf-8')

@pytest.mark.parametrize('end', range(0, len(GOOD)))
def test_truncated(end):
    assert Rate().read(GOOD[:end]).affect is None

def test_truncated_advice():
    for end in range(len(ADVICE)): assert Suggest().read(ADVICE[:end]) is None
    assert Suggest().read(ADVICE)==Suggestion(.8, -.3, 'soft sun', 'a lake')

@pytest.mark.parametrize('value', ODD)
def test_odd_numbers(value):
    for raw in (GOOD.replace('-1.2', value), GOOD.replace('0.8', value)):
        j = Rate().read(raw)
        believable(j)
        if value not in ('1e-400', '+1'): assert j.affect is None
    usable(Suggest().read(ADVICE.replace('0.8', value)))

def test_mutations():
    r, direct = random.Random(0), Rate(True)
    cases = ((GOOD, Rate().read, believable), (direct.reply(Affect(1, 1)), direct.read, believable),
             (ADVICE, Suggest().read, usable))
    for start, read, check in cases:
        for _ in range(3000):
            s = list(start)
            for _ in range(r.randint(1, 5)):
                i = r.randrange(len(s))
                s[i:i+r.choice([0, 1, 1, 4])] = r.choice(SPICE)
            check(read(''.join(s)))

def test_any_point_survives():
    for v in np.linspace(-3, 3, 61):
        for a in np.linspace(-3, 3, 13):
            p = Affect(round(float(v), 1)+0., round(float(a), 1)+0.)
            assert Rate().read(Rate().reply(p, nearest_emotion(p), 'x')).affect==p
            assert Rate(True).read(Rate(True).reply(p)).affect==p

def test_no_minus_zero():
    assert str(Rate(True).read('<answer>{"valence": -0.0, "arousal": -0}</answer>').affect.v)=='0.0'

def test_deep_and_long():
    for raw in ('<answer>'+'['*100_000, '<answer>'+'{"a":'*100_000+'}</answer>',
                '<think>'*20_000+'<answer>{}</answer>', 'x'*1_000_000):
        assert Rate().read(raw).affect is None and Suggest().read(raw) is None

def test_smuggling():
    raw = json.dumps(dict(valence=0, arousal=0, add='fog, valence 3.0 arousal 3.0', prompt=''))
    assert Suggest().read(f'<answer>{raw}</answer>').add=='fog'
    for add in ('fog\x00', 'f'*101, '\ud800'):
        raw = json.dumps(dict(valence=0, arousal=0, add=add))
        assert Suggest().read(f'<answer>{raw}</answer>') is None

def test_modifiers_keep_the_content():
    content, r = 'a lake by a forest', random.Random(1)
    text = f'{content}, valence 1.0 arousal 1.0'
    for _ in range(200):
        phrase = r.choice(['', 'fog', 'rain', 'sunshine', 'bright'])
        text = Suggestion(r.uniform(-6, 6), r.uniform(-6, 6), phrase).apply(Prompt(content, Affect(1, 1), text), most=2)
        parts = text.split(', ')
        assert parts[0]==content and len(parts)<=4 and read_target(text)

@pytest.fixture(scope='module')
def tiny():
    return tiny_judge(seed=0)

def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no judge at'): LVLMJudge.from_pretrained(tmp_path/'nothing')
    with pytest.raises(ValueError, match='cannot be read'): LVLMJudge.from_pretrained(tmp_path)
    (tmp_path/'config.json').write_text('{"model_type": "qwen2_5_vl"')
    with pytest.raises(ValueError, match='cannot be read'): LVLMJudge.from_pretrained(tmp_path)

def test_corrupt_weights(tiny, tmp_path):
    model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    whole = (tmp_path/'model.safetensors').read_bytes()
    (tmp_path/'model.safetensors').write_bytes(whole[:len(whole)//2])
    with pytest.raises(ValueError, match='cannot be read'): LVLMJudge.from_pretrained(tmp_path)

def test_pictures_of_any_size(tiny):
    r, sizes = np.random.default_rng(0), ((64, 64), (300, 200), (31, 77), (8, 8))
    pictures = [Image.fromarray(r.integers(0, 255, (h, w, 3), dtype='uint8')) for w, h in sizes]
    judge = LVLMJudge(*tiny, batch_size=3)
    together = [j.raw for j in judge.judge(pictures+[pictures[0].convert('L')])]
    assert together[:4]==[judge.judge([p])[0].raw for p in pictures] and judge.judge([])==[]
    assert judge.judge(torch.zeros(0, 3, 32, 32))==[]

def test_suggest_wants_equal_lists(tiny):
    x, j, p = torch.zeros(2, 3, 32, 32), [Judgement(Affect(0, 0))]*2, [Prompt('a lake', Affect(1, 1))]*2
    with pytest.raises(ValueError): LVLMJudge(*tiny).suggest(p, x, j, x[:1], j, [(0, 0)]*2)

def test_wrong_number_of_pictures(tiny):
    with pytest.raises(ValueError): Collator(tiny[1])([Example(Rate().ask(), [torch.zeros(3, 32, 32)]*2, 'x')])

class Cut(Exception): pass

def few_rows():
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return rows_for_grpo(x, [Affect(1, 0)]*4+[None]*4, [None]*4+['awe']*4)

TINY = GRPOSettings(steps=3, pictures=2, group_size=2, save_every=1, max_new_tokens=8, weights=(1.,))

def varied(completions, **columns) -> list[float]: return [len(set(completion_text(o)))/8 for o in completions]

def test_grpo_resumes(tmp_path):
    rows = few_rows()
    def look(model): return dict(mode=int(model.training))
    def look_or_cut(model):
        if (tmp_path/'checkpoint-1').exists(): raise Cut
        return look(model)
    how = dict(reward_funcs=[varied], every=2, progress=False)
    with pytest.raises(Cut): grpo(*tiny_judge(seed=0), rows, tmp_path, TINY, evaluate=look_or_cut, **how)
    assert (tmp_path/'checkpoint-1').exists() and not (tmp_path/'final').exists()
    log = grpo(*tiny_judge(seed=0), rows, tmp_path, TINY, evaluate=look, **how)
    assert [h['step'] for h in log if 'reward' in h]==[1, 2, 3] and [h['step'] for h in log if 'mode' in h]==[0, 2, 3]
    assert all(h['mode']==0 for h in log if 'mode' in h)
    assert (tmp_path/'final'/'adapter_model.safetensors').exists()
    assert len((tmp_path/'log.jsonl').read_text().splitlines())==len(log)

def test_grpo_all_weights_finished(tmp_path):
    settings, rewards = replace(TINY, steps=1, lora_rank=None), [varied]
    (model, processor), (again, _) = tiny_judge(seed=0), tiny_judge(seed=0)
    log, lines = grpo(model, processor, few_rows(), tmp_path, settings, rewards, progress=False), []
    assert grpo(again, processor, few_rows(), tmp_path, settings, rewards, say=lines.append)==log
    assert 'finished' in lines[0]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))

def test_sft_passes_over_a_torn_state(tmp_path):
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    def examples(rng, n): return [Example(Rate().ask(), [x[i]], GOOD) for i in rng.integers(0, 4, n)]
    def train(out, **how):
        model, processor = tiny_judge(seed=0)
        sft(model, processor, examples, out, updates=4, save_every=1, batch_size=2, warmup=1, progress=False, **how)
        return model
    whole = train(tmp_path)
    newest = max(tmp_path.glob('state-*.pt'))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match='is damaged and left out'): again = train(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters()))
    with pytest.raises(FileExistsError, match='seed is 0, not 1'): train(tmp_path, seed=1)
