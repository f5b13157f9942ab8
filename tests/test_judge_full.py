'Training and asking a judge at full size, on a scaled-down Qwen2.5-VL in the layout of the Hub'
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import scaled
from emofeedback.cli.main import app
from emofeedback.mini.models import bundled
from emofeedback.pipeline import EmoFeedback
from emofeedback.processor import load_processor
from emofeedback.recipes import qwen_judge_7b, with_settings
from emofeedback.train import train_judge
from emofeedback.understanding.expectation import ExpectedJudge, load_judge
from emofeedback.understanding.judge import LVLMJudge, load_model, question_of, save_question
from emofeedback.understanding.questions import Rate, Suggest

SMALL = ['steps=2', 'group_size=2', 'pictures=2', 'max_new_tokens=110', 'checkpointing=true', 'max_pixels=12544']
FULL = Rate(full=True)

def call(*args): return CliRunner().invoke(app, [str(a) for a in args])
def small(*changes): return with_settings(qwen_judge_7b(), [*SMALL, *changes])

@pytest.fixture(scope='session', params=['float32', 'bfloat16'])
def stock(request, tmp_path_factory):
    'A stock LVLM that has never seen our questions'
    return scaled.qwen(tmp_path_factory.mktemp('stock'), getattr(torch, request.param))

@pytest.fixture(scope='session')
def labelled(tmp_path_factory):
    'Pictures of any sizes with labels, one of them a photo of twelve million pixels'
    folder, rows = tmp_path_factory.mktemp('labelled'), ['image,valence,arousal,emotion']
    for k,(size,v) in enumerate({(64, 64): 1, (300, 200): -1, (120, 500): 2, (4000, 3000): 0}.items()):
        Image.new('RGB', size, (60*k, 90, 40)).save(folder/f'{k}.jpg')
        rows.append(f'{k}.jpg,{v},0.5,awe')
    (folder/'labels.csv').write_text('\n'.join(rows))
    return folder

def test_a_stock_model_without_the_form_stops_before_the_first_update(stock, labelled, tmp_path):
    for more in ([], ['--recipe', 'mini_judge']): # asked at length, and briefly
        out = tmp_path/f'run{len(more)}'
        sets = [o for s in (*SMALL, 'max_new_tokens=24') for o in ('--set', s)]
        r = call('train-judge', '--out', out, '--rows', labelled, '--judge', stock, *more, *sets)
        assert r.exit_code==1 and '0 of 4 answers can be read' in r.stderr and 'One of them' in r.stderr, r.output
        assert not (out/'grpo').exists() and not (out/'judge').exists()

def test_trained_and_asked_alike(knows, labelled, tmp_path):
    'A judge is trained, saved in its own precision, and asked everywhere what it was trained on'
    from transformers import AutoModelForImageTextToText
    own = load_model(knows, 'auto').dtype
    where = train_judge(tmp_path/'run', labelled, small(), knows, say=lambda text: None)
    log = [json.loads(o) for o in (tmp_path/'run/grpo/log.jsonl').read_text().splitlines()]
    assert any(o.get('reward', 0)>0 for o in log)
    assert json.loads((tmp_path/'run/recipe.json').read_text())['max_pixels']==12544
    assert question_of(where)==FULL and load_model(where, 'auto').dtype==own
    assert abs(sum(f.stat().st_size for f in where.glob('*.safetensors'))
               /sum(f.stat().st_size for f in knows.glob('*.safetensors'))-1)<.05
    model = AutoModelForImageTextToText.from_pretrained(where, dtype='auto')
    assert model.dtype==own and type(model).__name__=='Qwen2_5_VLForConditionalGeneration'
    asked = []
    class Heard(LVLMJudge):
        def answer(self, questions, *args, **kwargs):
            asked.extend(questions)
            return super().answer(questions, *args, **kwargs)
    for judge in (Heard.from_pretrained(where), load_judge(where)):
        assert judge.rate==FULL and judge.compare==Suggest(full=True) and type(judge) in (Heard, LVLMJudge)
        assert judge.processor.image_processor.size['longest_edge']==12544
    judge = Heard.from_pretrained(where)
    assert judge.judge([Image.new('RGB', (84, 112))])[0].raw and asked==[FULL.ask()]
    before = {f: f.stat().st_mtime_ns for f in where.iterdir()}
    with pytest.raises(FileExistsError, match='lr is 1e-05, not 0.1'):
        train_judge(tmp_path/'run', labelled, small('lr=.1'), knows)
    assert before=={f: f.stat().st_mtime_ns for f in where.iterdir()}

def test_all_weights(knows, labelled, tmp_path):
    where = train_judge(tmp_path, labelled, small('lora_rank=none', 'lr=1e-6', 'beta=0'), knows, say=lambda text: None)
    assert question_of(where)==FULL and load_model(where, 'auto').dtype==load_model(knows, 'auto').dtype

def test_the_pipeline_asks_what_was_trained(qwen, tmp_path):
    folders = [str(bundled(k)) for k in ('generator', 'judge')]
    brief = EmoFeedback.from_pretrained(*folders, device='cpu')
    assert isinstance(brief.judge, ExpectedJudge) and brief.judge.rate==Rate(direct=True)
    stock = EmoFeedback.from_pretrained(folders[0], qwen, device='cpu')
    assert stock.judge.rate==FULL and stock.explain.rate==FULL and stock.explain.max_new_tokens==512

def test_a_photo_costs_no_more_than_a_picture(qwen):
    photo = Image.new('RGB', (4000, 3000))
    def tokens(p): return int(p.image_processor(photo, return_tensors='pt')['image_grid_thw'].prod())//4
    assert tokens(load_processor(qwen))>15_000
    judge = LVLMJudge.from_pretrained(qwen)
    assert tokens(judge.processor)<=350
    assert len(judge.judge([photo, Image.new('RGB', (1, 1))]))==2

FORMS = {'```json\n{"valence": 2, "arousal": -1, "emotion": "contentment"}\n```': ((2, -1), 'contentment'),
         '<think>soft light</think>\n{"valence": +2.0, "arousal": -1.0, "emotion": "Awe."}': ((2, -1), 'awe'),
         '<answer>{"valence": 2.0, "arousal": -1.0, "emotion": "calmness"}</answer>': ((2, -1), None),
         "<answer>{'valence': 2.0, 'arousal': -1.0, 'emotion': 'awe',}</answer>": ((2, -1), 'awe'),
         '<answer>{"valence": 4.0, "arousal": -1.0, "emotion": "awe"}</answer>': (None, None),
         '<answer>{"valence": true, "arousal": -1.0, "emotion": "awe"}</answer>': (None, None),
         '<answer>{"valence": NaN, "arousal": -1.0, "emotion": "awe"}</answer>': (None, None),
         '<answer>{"arousal": -1.0, "emotion": "awe"}</answer>': (None, None),
         '<think>it might be {"valence": 1, "arousal": 1, "emotion": "awe"}': (None, None),
         'Valence: 2, Arousal: -1, Emotion: contentment': (None, None)}

@pytest.mark.parametrize('raw', FORMS)
def test_usual_forms_are_read(raw):
    found, (affect, emotion) = FULL.read(raw), FORMS[raw]
    assert (found.affect and tuple(found.affect), found.emotion)==(affect, emotion)

def test_usual_advice_is_read():
    rewrite = 'A serene lake by a dense forest at golden hour, warm sunlight filtering through the trees, '*3
    for add, prompt in (('"warm golden light, calm water, and a few people on the shore of the lake"', 'null'),
                        ('null', json.dumps(rewrite.strip())), ('""', 'null')):
        raw = f'<answer>{{"valence": +0.5, "arousal": -0.2, "add": {add}, "drop": null, "prompt": {prompt}}}</answer>'
        assert Suggest(full=True).read(raw) is not None
    assert Suggest(full=True).read('<answer>{"valence": 0.5, "add": "", "prompt": ""}</answer>') is None

def test_settings_from_the_shell(tmp_path):
    def tried(*more): return call('train-judge', '--out', tmp_path/'run', *more).stderr
    assert 'did you mean lr?' in tried('--set', 'lrr=1e-5')
    assert "'fast' is no float" in tried('--set', 'lr=fast')
    assert 'choose regression or classification' in tried('--only', 'both')
    assert 'tensorboard, wandb, trackio' in tried('--track', 'diary')
    assert not (tmp_path/'run').exists() or not any((tmp_path/'run').iterdir())

def test_packages_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr('emofeedback.system.find_spec', lambda name: None)
    for more, name in ((('--set', 'vllm=colocate'), 'vllm'), (('--track', 'wandb'), 'wandb')):
        r = call('train-judge', '--out', tmp_path/'run', *more)
        assert r.exit_code==1 and f'{name} is not installed: pip install {name}' in r.stderr

def test_two_processes(tmp_path):
    'The first tells, measures and saves, for both; the same call again finds the run finished'
    out = tmp_path/'run'
    launch = ['accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '-m', 'emofeedback', 'train-judge']
    command = [*launch, '--out', str(out), '--updates', '1', '--group-size', '2', '--set', 'pictures=4']
    here = os.environ | dict(OMP_NUM_THREADS='1')
    for said in ('before: distance', 'a finished run of 1 updates'):
        r = subprocess.run([sys.executable, '-m', *command], capture_output=True, text=True, timeout=600, env=here)
        assert r.returncode==0, r.stderr
        assert r.stdout.count(said)==1 and r.stdout.count('after: distance')==1 and r.stdout.count('The judge is in')==1
    assert question_of(out/'judge')==Rate() and LVLMJudge.from_pretrained(out/'judge').rate==Rate()

def test_a_question_of_another_kind_is_refused(tmp_path):
    save_question(tmp_path, Rate())
    (tmp_path/'question.json').write_text('{"words": "please"}')
    with pytest.raises(ValueError, match='other fields than direct and full'): question_of(tmp_path)
