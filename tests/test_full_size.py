'Every command of the page "Full size", with scaled-down models of the real architectures and tiny numbers'
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch import OutOfMemoryError as MemoryFull
from typer.testing import CliRunner

from bench.emoset_tree import write_tree
from emofeedback.cli.main import app
from emofeedback.mini.models import bundled

PAGE = Path(__file__).parents[1]/'nbs/guide/02_full_size.ipynb'
RUN = ('--size 64 --group-size 2 --updates 2 --set prompts=2 --set steps=10 --set batch_size=4 --set rank=4 '
       f'--metric clip-iqa:{bundled("clip")}')
PARTS = {f'reward/{k}' for k in ('valence', 'arousal', 'preference', 'clip-iqa')}
TINY = { # what makes a command tiny; the last one given counts
    'doctor': '', 'build-data': '--limit 24',
    'train-judge': '--updates 2 --group-size 4 --set pictures=2 --set max_new_tokens=110 --set max_pixels=12544 '
                   '--set levels=.25,.5,1', # answers of a group must differ in what they earn
    'evaluate-judge': '--limit 2 --batch 2', 'train-generator': RUN,
    'generate': '--size 64 --steps 2 --rounds 2 --images 2', 'evaluate': '--size 64 --steps 2 --grid 2'}

def commands() -> list[str]:
    cells = json.loads(PAGE.read_text(encoding='utf-8'))['cells']
    text = ''.join(''.join(c['source'])+'\n' for c in cells if c['cell_type']=='markdown')
    return [line for block in re.findall(r'```bash\n(.*?)```', text, re.S) for line in block.strip().splitlines()]

@pytest.fixture(scope='module')
def downloads(tmp_path_factory, sd35, knows, pickscore) -> tuple[Path, dict[str, str]]:
    'A folder to work in, and what stands for the names of the page'
    folder = tmp_path_factory.mktemp('full')
    write_tree(folder/'EmoSet-118K', 64, procs=1, bases=8)
    (folder/'scenes.txt').write_text('a lake by a forest\nan old man on the beach\n')
    return folder, {'stabilityai/stable-diffusion-3.5-medium': str(sd35), 'Qwen/Qwen2.5-VL-7B-Instruct': str(knows),
                    'pickscore': 'pickscore:'+':'.join(map(str, pickscore))}

def test_every_command_of_the_page(downloads, monkeypatch):
    folder, names = downloads
    monkeypatch.chdir(folder)
    done = []
    for line in commands():
        words = [names.get(o, o) for o in shlex.split(line)]
        launched = words[0]=='accelerate'
        at = words.index('emofeedback')+1
        command, rest = words[at], words[at+1:]+shlex.split(TINY[words[at]])
        if '--dry-run' in rest: rest = words[at+1:]
        if launched:
            env = os.environ | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
            start = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2',
                     '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no',
                     '--main_process_port', '0', '--module', 'emofeedback']
            found = subprocess.run([*start, command, *rest], env=env, capture_output=True, text=True, timeout=600)
            code, told = found.returncode, found.stdout+found.stderr[-3000:]
        else:
            found = CliRunner().invoke(app, [command, *rest])
            code, told = found.exit_code, found.output
            if found.exception and not isinstance(found.exception, SystemExit): raise found.exception
        assert code==(1 if command=='doctor' else 0), (line, told) # the doctor finds no GPU here
        done.append((command, told))
    assert [o for o,_ in done]==['doctor', 'build-data', 'train-judge', 'evaluate-judge', 'train-generator',
                                 'train-generator', 'train-generator', 'generate', 'evaluate']
    told = [o for _,o in done]
    assert told[0].count('\nok ')==4 and 'NO  memory' in told[0] and 'cannot run here: see memory' in told[0]
    assert 'GiB at the highest' in told[4]
    for k in ('sd35', 'paper'):
        assert (folder/f'runs/{k}/lora/pytorch_lora_weights.safetensors').is_file()
        rows = [json.loads(o) for o in (folder/f'runs/{k}/log.jsonl').read_text().splitlines()]
        assert len(rows)==2 and PARTS <= set(rows[0])
    assert (folder/'runs/beach.png').is_file() and (folder/'runs/judge-table/confusion.png').is_file()
    assert len((folder/'runs/grid.csv').read_text().splitlines())==1+2*2*2

@pytest.mark.parametrize('error', [MemoryFull('CUDA out of memory'), RuntimeError('the reward failed')])
def test_a_full_gpu_is_one_sentence_with_the_knobs(error, monkeypatch, tmp_path):
    error.__cause__ = MemoryFull('CUDA out of memory') # as `score` raises it
    def full(*args, **kwargs): raise error
    monkeypatch.setattr('emofeedback.train.train_generator', full)
    found = CliRunner().invoke(app, ['train-generator', '--out', str(tmp_path/'x'), '--updates', '1'])
    assert found.exit_code==1 and 'Traceback' not in found.output
    knobs = 'batch_size=4', '--size 512', '--judge-device', '--judge-endpoint', '--dry-run'
    assert all(o in found.output for o in knobs)
