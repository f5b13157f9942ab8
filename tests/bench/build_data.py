"""How long a data set of EmoSet's size takes, and how much memory: python tests/bench/build_data.py TREE OUT

TREE is made by emoset_tree.py. Nothing is described by a language model; prompts come from the annotations.
"""
import argparse, resource, time
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
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    start, cpu = time.perf_counter(), time.process_time()
    if args.only_index: n = sum(1 for _ in read_emoset(args.tree, skipped=Skipped()))
    else:
        source = Source('emoset', str(args.tree), lambda sk: read_emoset(args.tree, skipped=sk), lambda sk, s: read_emoset(args.tree, [s], sk))
        n = sum(s['rows'] for s in build(source, args.out, BuildConfig(lexicon=args.lexicon)).values())
    print(f'{n:,} rows in {time.perf_counter()-start:.1f} s ({time.process_time()-cpu:.1f} s of processor time), peak memory {peak():.0f} MB')

if __name__=='__main__': main()
