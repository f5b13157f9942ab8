'A server that speaks chat completions, backed by a model of the mini world'
import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

def picture_in(part): return Image.open(io.BytesIO(base64.b64decode(part['image_url']['url'].split(',')[1])))

class Server(ThreadingHTTPServer):
    '''Chat completions by a model of the mini world; `faults` are used up first, one per request

    A fault is a status, bytes that come as the body, 'slow', 'cut', or a function that answers for the handler.
    '''
    daemon_threads = True
    def __init__(self, ask, faults=()):
        super().__init__(('127.0.0.1', 0), Handler)
        self.ask, self.faults, self.seen, self.lock = ask, list(faults), [], threading.Lock()
        self.connections = 0
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()

    @property
    def address(self): return f'http://127.0.0.1:{self.server_port}/v1'

    def handle_error(self, *args): pass

    def process_request(self, *args):
        self.connections += 1
        super().process_request(*args)

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1' # connections stay open

    def log_message(self, *args): pass

    def send(self, status, body, **headers):
        self.send_response(status)
        for k, v in (headers | {'Content-Type': 'application/json', 'Content-Length': len(body)}).items():
            self.send_header(k, str(v))
        self.end_headers()
        self.wfile.write(body)

    def text(self, asked): # the model's answer
        parts = asked['messages'][0]['content']
        pictures = [picture_in(p) for p in parts if p['type']=='image_url']
        question = [dict(role='user', content=[dict(type='image') if p['type']=='image_url' else p for p in parts])]
        return self.server.ask([question], [pictures], '', asked['max_tokens'])[0]

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        with self.server.lock:
            self.server.seen.append((time.monotonic(), self.headers['Authorization'], asked))
            fault = self.server.faults.pop(0) if self.server.faults else None
            if fault is None: message = dict(role='assistant', content=self.text(asked))
        if fault is None:
            self.send(200, json.dumps(dict(choices=[dict(index=0, finish_reason='stop', message=message)])).encode())
        elif callable(fault): fault(self)
        elif fault=='slow': time.sleep(2)
        elif fault=='cut':
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choi')
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
        elif isinstance(fault, int):
            body = json.dumps(dict(error=dict(message=f'no: {self.headers["Authorization"]}'))).encode()
            self.send(fault, body, **({'Retry-After': '0.3'} if fault==429 else {}))
        else: self.send(200, fault)
