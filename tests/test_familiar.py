'The warning for pictures that the bundled judge cannot know: seldom for the mini world, nearly always for others'
import json

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from emofeedback import EmoFeedback, to_pil
from emofeedback.cli.main import app
from emofeedback.mini.captions import sample_prompts
from emofeedback.mini.rows import labelled_scenes

@pytest.fixture(scope='module')
def emo(): return EmoFeedback.mini()

def strangers() -> list[Image.Image]:
    'A portrait whole and in parts, written pages, gradients, stripes; fine noise is no part, for it looks like fog'
    portrait = Image.open(get_sample_data('grace_hopper.jpg', asfileobj=False)).convert('RGB')
    rng, (w, h) = np.random.default_rng(0), portrait.size
    found = [portrait, *(portrait.crop((w*i//3, h*j//3, w*i//3+w//2, h*j//3+h//2)) for i in (0, 1) for j in (0, 1))]
    for k in range(8):
        page = Image.new('RGB', (200, 160+20*k), 'white')
        for line in range(10): ImageDraw.Draw(page).text((8, 8+14*line), 'valence and arousal'[k:], 'black')
        ramp, bars = np.linspace(0, 255, 96), np.repeat(rng.integers(0, 255, (12, 3)), 8, 0)
        turned = np.roll(np.stack([ramp, ramp[::-1], np.full(96, 30.*k)], -1), k, -1)
        arrays = [np.broadcast_to(o, (96, 96, 3)).astype('uint8') for o in (turned, bars)]
        found += [page, *map(Image.fromarray, arrays)]
    return found

@torch.no_grad()
def test_pictures_of_the_mini_world_are_familiar(emo):
    painted, prompts = labelled_scenes(400, seed=11)[0], sample_prompts(64, np.random.default_rng(8))
    drawn = emo.gen.sample([p.text for p in prompts], 8, generator=torch.Generator().manual_seed(8))
    known = torch.cat([emo.familiar(painted), emo.familiar(to_pil(drawn, 256))])
    assert (~known).float().mean()<=.015

def test_others_are_not(emo):
    odd = strangers()
    assert emo.familiar(odd[:5]).sum()==0, 'a portrait is no landscape'
    assert emo.familiar(odd).float().mean()<=.1

def test_shell_tells_it_beside_the_reading(emo, tmp_path):
    to_pil(labelled_scenes(1, seed=3)[0])[0].save(tmp_path/'a scene.png')
    strangers()[0].save(tmp_path/'portrait.jpg')
    r = CliRunner().invoke(app, ['rate', str(tmp_path), '--json', '--direct'])
    rows = [json.loads(o) for o in r.stdout.splitlines()]
    assert r.exit_code==0 and [o['familiar'] for o in rows]==[True, False]
    assert r.stderr.count('unlike all that the judge was trained on')==1 and 'portrait.jpg' in r.stderr

def test_a_judge_of_ones_own_is_not_held_to_the_mini_world(emo):
    from emofeedback.mini.models import bundled
    assert EmoFeedback.mini(judge=bundled('judge_cold')).familiar is None
    assert EmoFeedback.mini(judge=emo.judge).familiar is None
