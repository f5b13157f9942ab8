'Pictures in every state: what is read, what is refused, and that one of them never stops a build or changes a training'
import csv
import json
import struct
import time
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from emofeedback.data.build import Source, build
from emofeedback.data.dataset import check_picture
from emofeedback.images import read_image
from emofeedback.mini.rows import mini_rows

def photo(w=96, h=64) -> Image.Image:
    'Something that does not compress to nothing'
    y, x = np.mgrid[:h, :w]
    noise = np.random.default_rng(0).integers(0, 90, (h, w, 3))
    return Image.fromarray((np.stack([x*150//w, y*150//h, (x+y)*80//(w+h)], -1)+noise).astype('uint8'))

def saved(img, kind, **how) -> bytes:
    img.save(buf := BytesIO(), kind, **how)
    return buf.getvalue()

def chunk(name, body) -> bytes: return struct.pack('>I', len(body))+name+body+struct.pack('>I', zlib.crc32(name+body))

def huge_png(side=13000) -> bytes:
    'Many pixels in few bytes'
    head = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    z = zlib.compressobj(9)
    body = b''.join(z.compress(bytes(side+1)) for _ in range(side))+z.flush()
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', head)+chunk(b'IDAT', body)+chunk(b'IEND', b'')

def broken() -> dict[str, bytes]:
    'Files that begin as a picture does'
    png, jpg = saved(photo(), 'PNG'), saved(photo(), 'JPEG')
    web = saved(photo(), 'JPEG', progressive=True)
    hurt = bytearray(png)
    hurt[len(png)//2] ^= 255
    cut = len(png)//2
    return {'damaged IDAT.png': bytes(hurt), 'cut with IEND.png': png[:cut]+png[-12:],
            'cut.bmp': saved(photo(), 'BMP')[:-9000], 'cut.gif': saved(photo(), 'GIF')[:-3000],
            'cut.tif': saved(photo(), 'TIFF')[:-9000], 'cut.webp': saved(photo(), 'WEBP')[:-900],
            'eps.png': saved(photo(), 'EPS'), 'cut.jpg': jpg[:len(jpg)//2],
            'cut with EOI.jpg': jpg[:len(jpg)//2]+b'\xff\xd9',
            'cut progressive with EOI.jpg': web[:len(web)//2]+b'\xff\xd9'}

KINDS = broken()

@pytest.mark.parametrize('name', KINDS)
def test_what_cannot_be_decoded_is_refused_when_it_is_checked(name, monkeypatch):
    with pytest.raises(ValueError, match='broken picture: '): check_picture(KINDS[name])
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True) # as some libraries leave it
    with pytest.raises(ValueError, match='broken picture: '): check_picture(KINDS[name])
    with pytest.raises(ValueError, match='cannot be read as a picture'): read_image(KINDS[name])
    assert ImageFile.LOAD_TRUNCATED_IMAGES

def test_whole_pictures_pass():
    grey, flat = photo().convert('L'), Image.new('RGB', (96, 64), (128, 128, 128))
    for img in (photo(), grey, flat, Image.new('L', (64, 64), 128), photo().convert('CMYK')):
        for how in ({}, dict(progressive=True), dict(quality=20), dict(restart_marker_blocks=4)):
            check_picture(data := saved(img, 'JPEG', **how))
            check_picture(data+bytes(500)) # cameras leave something behind the end
    for kind in ('PNG', 'BMP', 'GIF', 'TIFF', 'WEBP'): check_picture(saved(photo(), kind))
    check_picture(saved(photo(), 'MPO', save_all=True, append_images=[photo()])) # two pictures of a phone in one JPEG

def test_one_broken_picture_does_not_stop_a_build(tmp_path):
    good, said = list(mini_rows(40, seed=4, size=32)), []
    rows = good+[replace(good[0], image=o, name=f'image/{n}') for n, o in KINDS.items()]
    build(Source('mini', 'x', lambda sk: rows), tmp_path/'d', say=said.append, progress=False)
    listed = dict(list(csv.reader(open(tmp_path/'d/skipped.csv', newline='')))[1:])
    for n in KINDS: assert listed[f'image/{n}'].startswith('broken picture: ')
    summary = json.loads((tmp_path/'d/summary.json').read_text())
    assert sum(s['pictures'] for s in summary.values())==len(good)
    assert any(f'broken picture {len(KINDS)}' in o for o in said)

def test_the_sheet_survives_a_picture_that_went_bad(tmp_path, monkeypatch):
    rows = list(mini_rows(40, seed=4, size=32))
    bad = next(i for i, r in enumerate(rows) if r.split=='train')
    rows[bad] = replace(rows[bad], image=KINDS['cut with IEND.png'])
    monkeypatch.setattr('emofeedback.data.build.check_picture', lambda data: data) # as if it went bad after the check
    assert build(Source('mini', 'x', lambda sk: rows), tmp_path/'d', say=str, progress=False)
    assert (tmp_path/'d/sheet.jpg').is_file()

@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey_is_scaled(kind):
    grey = np.asarray(photo().convert('L'))
    deep = Image.fromarray(grey.astype('uint16')*257)
    assert np.array_equal(np.asarray(read_image(saved(deep, kind)))[..., 0], grey)
    kept = check_picture(saved(deep, kind)) # what a data set holds, others read with Pillow alone
    assert np.array_equal(np.asarray(Image.open(BytesIO(kept)).convert('RGB'))[..., 0], grey)

@pytest.mark.parametrize('top', [1, 255, 65535])
def test_float_tiff_is_scaled(top):
    grey = np.asarray(photo().convert('L'))
    data = saved(Image.fromarray((grey/255*top).astype('float32')), 'TIFF')
    assert np.abs(np.asarray(read_image(data))[..., 0].astype(int)-grey).max()<=1

@pytest.mark.parametrize('odd', [np.nan, np.inf, -5., 1e9])
def test_numbers_that_are_no_grey_are_refused(odd):
    x = np.full((32, 32), .5, 'float32')
    x[3, 4] = odd
    with pytest.raises(ValueError, match='broken picture: '): check_picture(saved(Image.fromarray(x), 'TIFF'))

@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_too_many_pixels_are_refused_from_the_header():
    data = huge_png()
    assert len(data)<200_000
    start = time.perf_counter()
    for read in (read_image, check_picture):
        with pytest.raises(ValueError, match='13000×13000 pixels'): read(data)
    assert time.perf_counter()-start<.5

def test_a_thin_picture_is_skipped_and_not_met_in_training():
    thin = saved(Image.new('RGB', (4000, 10)), 'PNG')
    with pytest.raises(ValueError, match='broken picture: .*thin'): check_picture(thin)
