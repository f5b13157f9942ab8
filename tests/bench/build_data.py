"""How long a data set of EmoSet's size takes, and how much memory: python tests/bench/build_data.py TREE OUT

TREE is made by emoset_tree.py. Nothing is described by a language model; prompts come from the annotations.
"""
import argparse
import resource
import time
from pathlib import Path

from emofeedback.data.build import BuildConfig, Source, build
from emofeedback.data.emoset import read_emoset
from emofeedback.data.files import Skipped

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('tree', type=Path)
    p.add_argument('out', type=Path, help='a new folder')
    p.add_argument('--lexicon', default='warriner')
    p.add_argument('--only-index', action='store_true', help='read the annotations and write nothing')
    args = p.parse_args()
    def read(skipped, split=None): return read_emoset(args.tree, split and [split], skipped)
    start, cpu = time.perf_counter(), time.process_time()
    if args.only_index: n = sum(1 for _ in read(Skipped()))
    else:
        found = build(Source('emoset', str(args.tree), read, read), args.out, BuildConfig(lexicon=args.lexicon))
        n = sum(s['rows'] for s in found.values())
    took, worked = time.perf_counter()-start, time.process_time()-cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    print(f'{n:,} rows in {took:.1f} s ({worked:.1f} s of processor time), peak memory {peak:.0f} MB')

if __name__=='__main__': main()
