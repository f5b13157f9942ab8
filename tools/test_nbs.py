"Run the lesson cells of every notebook, each in a process and with a time limit of its own"
import os, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from run_nbs import arguments, notebooks

nbdev_test = Path(sys.executable).parent/'nbdev_test'  # of this environment, activated or not

def test_nb(path, flags='', timeout=600):
    "Return what went wrong (None if nothing) and the seconds taken; a process of its own gives its memory back"
    start,cmd = time.time(),[nbdev_test, '--path', str(path)] + (['--flags', flags] if flags else [])
    try:
        r = subprocess.run(cmd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        err = r.stdout[-6000:] if r.returncode else None
    except subprocess.TimeoutExpired: err = f'not finished after {timeout} s'
    return err, time.time()-start

def main():
    a = arguments(__doc__)
    a.add_argument('--timeout', type=int, default=600, help='seconds allowed for a notebook (default: %(default)s)')
    a.add_argument('--jobs', type=int, default=2, help='notebooks at a time (default: %(default)s)')
    args = a.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.update(HF_HUB_OFFLINE='1', MPLBACKEND='agg')
    files,bad = notebooks(*args.paths),[]
    with ThreadPoolExecutor(args.jobs) as pool:
        for f,(err,secs) in zip(files, pool.map(lambda f: test_nb(f, args.flags, args.timeout), files)):
            name = os.path.relpath(f)
            print('ok  ' if err is None else 'FAIL', f'{secs:5.1f} s ', name, flush=True)
            if err is not None: bad.append(f'{name}\n{err}')
    if bad: sys.exit('\n'.join([*bad, f'{len(bad)} of {len(files)} notebooks failed: ' + ', '.join(b.split()[0] for b in bad)]))
    print(f'{len(files)} notebooks passed')

if __name__=='__main__': main()
