"""The second prior of the mini world: wide, mild and marked scenes. usage: world2.py N SEED FILE"""
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from emofeedback.mini.scenes import ATTRS, MOOD, THINGS, Scenes, gold, paint, sample_scenes

WIDE, MILD, MARKED = 0, 1, 2

def mild(attrs, rng, keep=.12):
    a = attrs.copy()
    a[:, :5] = .5+.4*(a[:, :5]-.5)
    a[:, 5:] *= (rng.random((len(a), 8))<keep)*.6
    return a

def mark(attrs, rng):
    'One to three attributes made strong'
    a = attrs.copy()
    w = np.array([1.]*5+[1., 1.2, 1.2, 1., 2.5, 1.2, 1.2, 1.2])
    w /= w.sum()
    for row in a:
        for j in rng.choice(13, rng.choice([1, 2, 3], p=[.55, .3, .15]), replace=False, p=w):
            if j>=5: row[j] = rng.uniform(.35, 1.)
            else:
                lo, hi = [(0, .12), (.12, .34), (.66, .88), (.88, 1.)][rng.choice(4, p=[.35, .15, .15, .35])]
                row[j] = rng.uniform(lo, hi)
    return a

def scenes2(n, rng, p=(.35, .33, .32)):
    s = sample_scenes(n, rng)
    kind = rng.choice(3, n, p=p)
    a = s.attrs.copy()
    a[kind==MILD] = mild(a[kind==MILD], rng)
    a[kind==MARKED] = mark(mild(a[kind==MARKED], rng, .05), rng)
    return Scenes(s.content, a.astype(np.float32), s.seed), kind

def painted2(n, seed):
    s, kind = scenes2(n, np.random.default_rng([seed, 21]))
    x, va = [], []
    for i in range(0, n, 500):
        part = s[np.arange(i, min(n, i+500))]
        q = paint(part)
        x.append((q*255).round().byte()); va.append(gold(q, part))
    return dict(x=torch.cat(x), content=torch.from_numpy(s.content), attrs=torch.from_numpy(s.attrs), va=torch.cat(va), kind=torch.from_numpy(kind))

if __name__=='__main__':
    import time
    t = time.process_time()
    d = painted2(int(sys.argv[1]), int(sys.argv[2]))
    torch.save(d, sys.argv[3])
    print(sys.argv, 'CPU', time.process_time()-t, d['x'].shape, [(k, d['va'][d['kind']==k].mean(0).tolist(), d['va'][d['kind']==k].std(0).tolist()) for k in range(3)])
