import sys, warnings, torch, numpy as np; sys.path.insert(0, 'port'); torch.set_num_threads(1); warnings.filterwarnings('ignore')
from adviser import *
from eval_base import generator
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.mini.models import bundled
from emofeedback.mini.captions import sample_prompts
g = generator('out/generator'); J = LVLMJudge.from_pretrained(bundled('judge'))
w = sample_prompts(4, np.random.default_rng(0))
S = drawn_situations(g, J, w, generator=torch.Generator().manual_seed(0))
d = rows_for_advice(S); print(d)
said = [f'<think>x</think><answer>{{"valence": {s.lacking[0]:.1f}, "arousal": {s.lacking[1]:.1f}, "add": "huge flames"}}</answer>' for s in S]; said[1] = 'no'
r = consequence_reward(g, J)
print(w, r(said, d['content'], d['text'], d['target'], d['before']), d['before'])
print(informed_phrase(np.array([.1, 2.]), ['fog'], {'fog': np.array([-.5, -1.]), 'huge flames': np.array([-1., 2.]), 'light fog': np.array([0., -.1])}))
print(exchanged(Suggestion(.4, 1., 'light fog'), Prompt('a lake', Affect(1., 1.), 'a lake, fog, sunshine, valence 1.0 arousal 1.0')))
