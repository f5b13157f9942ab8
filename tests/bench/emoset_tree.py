"""Write a data set of EmoSet-118K's size in its official layout, to measure readers and builders with:

    python tests/bench/emoset_tree.py DIR --images 118102 [--read]

A few hundred scenes of the mini world are painted once; every file is one of them with a comment of its own
inside (a JPEG comment segment), so that no two files have the same content. With --read the folder is indexed
afterwards by `read_emoset` in a fresh process, which prints its time and its peak memory.
"""
import argparse
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emofeedback.affect import EMOTIONS
from emofeedback.data.labels import Row
from emofeedback.images import to_pil
from emofeedback.mini.rows import attributes_of, emoset_info
from emofeedback.mini.scenes import CONTENTS, paint, sample_scenes
from emofeedback.runs import write_json

SPLITS = dict(train=.8, val=.05, test=.15)
FACES = 'angry disgust fear happy sad surprise'.split()
ACTIONS = ['flying kite', 'riding bike', 'walking the dog', 'playing guitar', 'hugging']

def base_pictures(n:int, side:int, quality:int=70) -> tuple[list[bytes], list[dict]]:
    'JPEG files of painted scenes, and what an annotation says of them'
    scenes = sample_scenes(n, np.random.default_rng(0))
    def jpeg(image):
        image.save(buf := io.BytesIO(), 'JPEG', quality=quality)
        return buf.getvalue()
    notes = [attributes_of(CONTENTS[c], a) for c,a in zip(scenes.content, scenes.attrs)]
    return [jpeg(o) for o in to_pil(paint(scenes, side))], notes

def commented(jpeg:bytes, text:str) -> bytes:
    'The same picture with a comment behind the start marker'
    note = text.encode()
    return jpeg[:2] + b'\xff\xfe' + (len(note)+2).to_bytes(2, 'big') + note + jpeg[2:]

def thinned(attributes:dict, rng:random.Random) -> dict:
    'Attributes as uneven as the real ones: each of the worded ones is there only at times'
    keep = {k: v for k,v in attributes.items() if k in ('brightness', 'colorfulness') or rng.random()<.7}
    if rng.random()<.15: keep['facial_expression'] = rng.choice(FACES)
    if rng.random()<.25: keep['human_action'] = rng.choice(ACTIONS)
    return keep

def write_part(args):
    'Pictures and annotations from `start` to `stop`; gives back how many'
    root, start, stop, pictures, notes = args
    for i in range(start, stop):
        rng, e = random.Random(i), EMOTIONS[i%len(EMOTIONS)]
        ident, k = f'{e}_{i//len(EMOTIONS):05}', rng.randrange(len(pictures))
        with open(f'{root}/image/{e}/{ident}.jpg', 'wb') as f: f.write(commented(pictures[k], ident))
        note = dict(image_id=ident, emotion=e, **thinned(notes[k], rng))
        with open(f'{root}/annotation/{e}/{ident}.json', 'w') as f: json.dump(note, f)
    return stop-start

def split_row(i:int, elements:int) -> list:
    'The row of a picture in its split file'
    e = EMOTIONS[i%len(EMOTIONS)]
    ident = f'{e}_{i//len(EMOTIONS):05}'
    return [e, *[ident][:elements-3], f'image/{e}/{ident}.jpg', f'annotation/{e}/{ident}.json']

def write_tree(root:Path, n:int, elements:int=4, procs:int=2, bases:int=256, side:int=48) -> None:
    'The whole data set'
    for k in ('image', 'annotation'):
        for e in EMOTIONS: (root/k/e).mkdir(parents=True)
    pictures, notes = base_pictures(bases, side)
    step = 500
    parts = [(str(root), i, min(i+step, n), pictures, notes) for i in range(0, n, step)]
    with get_context('spawn').Pool(procs) as pool, tqdm(total=n, unit=' pictures', mininterval=1) as bar:
        for done in pool.imap_unordered(write_part, parts): bar.update(done)
    order = list(range(n))
    random.Random(0).shuffle(order)
    cuts = [0, round(.8*n), round(.85*n), n]
    for (s,_),a,b in zip(SPLITS.items(), cuts, cuts[1:]):
        write_json(root/f'{s}.json', [split_row(i, elements) for i in order[a:b]])
    known = [dict(o, facial_expression=FACES[k%6], human_action=ACTIONS[k%5]) for k,o in enumerate(notes)]
    write_json(root/'info.json', emoset_info([Row(None, attributes=o) for o in known]))

def read_tree(root:Path) -> None:
    'Index the folder and say how long it took'
    from emofeedback.data.emoset import read_emoset
    from emofeedback.data.files import Skipped
    def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    before, start, skipped, counts = peak(), time.perf_counter(), Skipped(), {}
    for r in read_emoset(root, skipped=skipped): counts[r.split] = counts.get(r.split, 0)+1
    took = time.perf_counter()-start
    print(f'{sum(counts.values()):,} rows {counts}, {len(skipped)} skipped, in {took:.1f} s; '
          f'peak memory {peak():.0f} MB ({before:.0f} MB before)')

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('folder', type=Path, help='where to write; it must not exist yet, or be empty')
    a.add_argument('--images', type=int, default=118102, help='how many pictures (default: %(default)s)')
    a.add_argument('--elements', type=int, default=4, choices=(3, 4),
                   help='elements in a split row (default: %(default)s)')
    a.add_argument('--procs', type=int, default=2, help='processes that write (default: %(default)s)')
    a.add_argument('--read', action='store_true', help='index it afterwards; an existing folder is only read')
    args = a.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    there = args.folder.is_dir() and any(args.folder.iterdir())
    if there and not args.read:
        raise SystemExit(f'{args.folder} is not empty: choose a new folder, or pass --read to index what is there')
    if not there:
        where = args.folder.parent if args.folder.parent.exists() else '.'
        start, free, need = time.perf_counter(), shutil.disk_usage(where).free, args.images*8200
        if free<need:
            raise SystemExit(f'about {need/1e9:.1f} GB are needed and {free/1e9:.1f} GB are free: choose another disk')
        write_tree(args.folder, args.images, args.elements, args.procs)
        print(f'wrote {args.images:,} pictures in {time.perf_counter()-start:.1f} s')
    if args.read: # in a fresh process, for its memory
        code = ['import sys', 'from pathlib import Path', f'sys.path.insert(0, {str(Path(__file__).parent)!r})',
                'from emoset_tree import read_tree', f'read_tree(Path({str(args.folder)!r}))']
        subprocess.run([sys.executable, '-c', '\n'.join(code)], check=True)

if __name__=='__main__': main()
