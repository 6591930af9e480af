// Live text: while one records, the sound also goes to the server, and comes back as text. After Stop the recording is
// transcribed as any other file, and that text takes the place of the live one.

const LIVE_BLOCK_SECONDS = 0.1;
const LIVE_KEPT_SECONDS = 120; // of sound that goes to the server again after a lost connection
const LIVE_RETRY_MILLISECONDS = 1000;

// Runs in the browser's thread for sound.
const WORKLET = `registerProcessor('samples', class extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
});`;

// Gradio's recorder uses a MediaRecorder, which says what is recorded and when it pauses.
const Recorder = window.MediaRecorder;
window.MediaRecorder = class extends Recorder {
  constructor(...given) {
    super(...given);
    this.addEventListener('start', () => new LiveText(this).begin());
  }
};

class LiveText {
  constructor(recorder) {
    this.recorder = recorder;
    this.blocks = []; // {start, samples} since the last segment, in seconds of the recording
    this.seconds = 0; // of the recording so far
    this.pending = []; // samples of the next block
    recorder.addEventListener('stop', () => this.end());
  }

  async begin() {
    this.context = new AudioContext();
    const module = URL.createObjectURL(new Blob([WORKLET], { type: 'text/javascript' }));
    await this.context.audioWorklet.addModule(module);
    URL.revokeObjectURL(module);
    const samples = new AudioWorkletNode(this.context, 'samples', { numberOfOutputs: 0 });
    samples.port.onmessage = ({ data }) => this.take(data);
    this.context.createMediaStreamSource(this.recorder.stream).connect(samples);
    this.connect();
  }

  take(samples) {
    if (this.recorder.state !== 'recording') return;
    for (const sample of samples) this.pending.push(clamp(Math.round(sample * 32768), -32768, 32767));
    if (this.pending.length < LIVE_BLOCK_SECONDS * this.context.sampleRate) return;
    const block = { start: this.seconds, samples: Int16Array.from(this.pending) };
    this.pending = [];
    this.seconds += block.samples.length / this.context.sampleRate;
    this.blocks.push(block);
    while (this.seconds - this.blocks[0].start > LIVE_KEPT_SECONDS) this.blocks.shift();
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(block.samples);
  }

  connect() {
    if (this.recorder.state === 'inactive') return;
    const address = new URL('live', document.baseURI);
    address.protocol = address.protocol.replace('http', 'ws');
    this.socket = new WebSocket(address);
    this.socket.onopen = () => {
      this.socketStart = this.blocks[0]?.start ?? this.seconds;
      this.socket.send(JSON.stringify({ rate: this.context.sampleRate, ...options }));
      for (const { samples } of this.blocks) this.socket.send(samples);
    };
    this.socket.onmessage = ({ data }) => this.hear(JSON.parse(data));
    this.socket.onclose = ({ reason }) => {
      if (this.recorder.state === 'inactive') return;
      if (this.recorder.state === 'paused') this.recorder.addEventListener('resume', () => this.connect(), { once: true });
      else if (reason) tell(`No live text: ${reason} The recording goes on.`);
      else setTimeout(() => this.connect(), LIVE_RETRY_MILLISECONDS);
    };
  }

  hear({ transcript, segment, partial, ...about }) {
    if (transcript && !this.document) {
      const made = { ...options, label: 'live text' };
      this.document = { id: Date.now(), name: 'recording.wav', live: true, undo: [], redo: [] };
      this.document.transcript = { ...transcript, state: 'live', seconds: 0, made };
      shown = this.document;
      sessionStorage.setItem(SHOWN, shown.id);
    }
    if (shown !== this.document) return;
    const before = shown.transcript;
    if (segment) {
      const moved = (part) => ({ ...part, start: part.start + this.socketStart, end: part.end + this.socketStart });
      const made = { ...moved(segment), words: segment.words.map(moved) };
      this.blocks = this.blocks.filter(({ start }) => start >= made.end);
      spoken = null;
      replace({ ...before, segments: [...before.segments, made], duration: made.end });
    } else if (partial !== undefined) {
      spoken = partial ? { partial, start: about.start + this.socketStart, stable: about.stable_length } : null;
      show();
    }
    box.scrollTop = box.scrollHeight;
  }

  end() {
    this.socket?.close();
    this.context.close();
    spoken = null;
    if (shown?.transcript && shown === this.document) {
      replace({ ...shown.transcript, state: 'stopped', duration: this.seconds });
    }
  }
}
