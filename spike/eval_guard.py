import sys, warnings, torch; sys.path.insert(0, 'port'); torch.set_num_threads(1); warnings.filterwarnings('ignore')
import numpy as np
from guard import *
from eval_base import generator
from emofeedback.generation.preference import ClipScore
from emofeedback.mini.models import bundled
from emofeedback.mini.captions import HELD_OUT, MODIFIERS, DETAILS, neutral, content_of
from emofeedback.mini.scenes import CONTENTS
from emofeedback.data.prompts import with_target
from emofeedback.pipeline import mini_oracle
from emofeedback.core import Affect, Prompt
g, o, clip = generator('out/generator'), mini_oracle(), ClipScore.from_pretrained(bundled('clip'))
rng = np.random.default_rng(0)
plain = [Prompt(neutral(c, DETAILS[c][0]), Affect(0, 0), neutral(c, DETAILS[c][0])) for c in CONTENTS for _ in range(8)]
x = g.sample([p.text for p in plain], 8, generator=torch.Generator().manual_seed(0))
s = measured_scale(clip, x, plain); print('scale', s)
# prompts as textual feedback makes them: held-out scenes with up to four phrases and numbers
def text(c): return with_target(', '.join([c, *rng.choice(list(MODIFIERS), rng.integers(0, 4), replace=False)]), Affect(*rng.uniform(-2, 2, 2).round(1)))
told = [Prompt(c, Affect(0, 0), text(c)) for c in HELD_OUT for _ in range(30)]
told = [p for p in told if len(g.pipe.tokenizer(p.text).input_ids)<=32]
y = g.sample([p.text for p in told], 8, generator=torch.Generator().manual_seed(1))
right = torch.tensor([a==content_of(p.content) for a, p in zip(o.content(y), told)])
print('n', len(told), 'right', right.float().mean().item())
for least in (.3, .4, .5, .6, .7):
    G = ScaledGuard(clip, s, least)
    sh = s.share(clip(y, told)); wr = s.share(clip(y, wrong_prompts(told)))
    print(least, 'rounds of 8', refusal_rates(G, y, told, right, generator=torch.Generator().manual_seed(2)), 'rounds of 4', refusal_rates(G, y, told, right, 4, generator=torch.Generator().manual_seed(2)), 'single: refused right %.3f, refused wrong %.3f' % ((sh[right]<least).float().mean(), (wr<least).float().mean()))
from emofeedback.mini.oracle import not_scenes
torch.manual_seed(0)
for k in range(2):
    n = not_scenes(y); none = torch.tensor([a=='none' for a in o.content(n)])
    sh = s.share(clip(n, told)); print('not scenes', none.float().mean().item(), 'refused single', [round((sh[none]<l).float().mean().item(), 3) for l in (.3, .5, .7)])
