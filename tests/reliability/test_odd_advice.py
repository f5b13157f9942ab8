'Advice that no reader should follow: it is refused or cleaned, the loop goes on, and what it saves can be read'
import json
import time

import pytest
import torch

from emofeedback.core import Affect, Prompt
from emofeedback.feedback.advisers import Advised
from emofeedback.feedback.guard import ContentGuard
from emofeedback.feedback.loop import textual_feedback
from emofeedback.generation.sd3 import SD3
from emofeedback.mini.models import bundled
from emofeedback.mini.oracle import Oracle
from emofeedback.system import quiet
from emofeedback.understanding.questions import Suggest

ODD = dict(
    long='huge flames, '*80_000, one_word='a'*1_000_000, spaces=' '*1_000_000, control='fire\x00\x1b[31m\r\n\x07',
    half='fire \ud83d', null='\x00', script='<script>alert(1)</script>', latex=r'$\input{/etc/passwd}$',
    percent='%s %(x)s {0} {target.__class__}', right_to_left='\u202efire', combining='a'+'\u0301'*10_000,
    nothing='', numbers='valence 9999 arousal -1e308', quotes='"\'`')

@pytest.fixture(scope='module')
def parts():
    with quiet(): return (SD3.from_pretrained(bundled('generator')),
                          Oracle.from_pretrained(bundled('oracle')))

@pytest.mark.parametrize('place', ['add', 'prompt'])
@pytest.mark.parametrize('name', ODD)
def test_odd_advice(parts, name, place, tmp_path):
    gen, oracle = parts
    start, given = time.monotonic(), dict(valence=0., arousal=0., add='', prompt='')|{place: ODD[name]}
    advice = Suggest().read(f'<answer>{json.dumps(given)}</answer>') # None: it cannot be read
    adviser = Advised(oracle, lambda prompts, *rest: [advice]*len(prompts))
    asked = Prompt('a lake', Affect(1., 1.), 'a lake, valence 1.0 arousal 1.0')
    found, = textual_feedback(gen, adviser, [asked], 2, 2, guard=ContentGuard(gen=gen), steps=2, progress=False)
    assert time.monotonic()-start<10
    texts = [r.prompt.text for r in found.rounds]
    assert texts[0]==asked.text and all(len(t)<1000 for t in texts)
    assert torch.stack([r.images for r in found.rounds]).isfinite().all()
    found.save_rounds(tmp_path)
    assert json.loads((tmp_path/'feedback.json').read_text())['rounds'][0]['text']==asked.text
    assert '<script' not in found._repr_html_()
