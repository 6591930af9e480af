// What is kept in this browser: the last recordings with their text, in IndexedDB; nothing of it is on the server. With
// keeping switched off, or where the browser refuses, the same lives in memory until the page is closed.

const KEPT_TEXTS = 100;
const KEPT_SOUNDS = 10; // of the last recordings
const KEPT_SOUND_MB = 200; // of one recording; of a larger one only the text is kept
const SWITCH = 'hark.keep'; // in localStorage: 'on' or 'off'

const kept = {
  documents: new Map(), // id → document, the newest last
  sounds: new Map(), // id → Blob, of those that are not in the database
  on: localStorage.getItem(SWITCH) !== 'off',
  failure: '', // why the database keeps nothing

  async load() {
    const documents = this.on ? await this.ask('documents', 'readonly', (store) => store.getAll()) : [];
    for (const document of documents ?? []) this.documents.set(document.id, document);
  },

  // A document is `{id, ...}`, of plain values.
  async save(document) {
    this.documents.set(document.id, document);
    await this.write('documents', (store) => store.put(document));
    for (const id of [...this.documents.keys()].slice(0, -KEPT_TEXTS)) await this.remove(id);
  },

  async saveSound(id, sound) {
    this.sounds.set(id, sound);
    if (await this.write('sounds', (store) => store.put(sound, id))) this.sounds.delete(id);
    for (const old of [...this.documents.values()].slice(0, -KEPT_SOUNDS)) {
      if (old.soundless) continue;
      old.soundless = true;
      this.sounds.delete(old.id);
      await this.write('sounds', (store) => store.delete(old.id));
      await this.write('documents', (store) => store.put(old));
    }
  },

  async sound(id) {
    return this.sounds.get(id) ?? this.ask('sounds', 'readonly', (store) => store.get(id));
  },

  async remove(id) {
    this.documents.delete(id);
    this.sounds.delete(id);
    await this.write('documents', (store) => store.delete(id));
    await this.write('sounds', (store) => store.delete(id));
  },

  async forget() {
    this.documents.clear();
    this.sounds.clear();
    await this.empty();
  },

  async turn(on) {
    localStorage.setItem(SWITCH, on ? 'on' : 'off');
    if (on) {
      this.on = true;
      for (const document of this.documents.values()) await this.save(document);
      for (const [id, sound] of this.sounds) await this.saveSound(id, sound);
      return;
    }
    for (const id of this.documents.keys()) {
      const sound = await this.sound(id);
      // Read into memory, since the browser's file goes with the database.
      if (sound) this.sounds.set(id, new Blob([await sound.arrayBuffer()], { type: sound.type }));
    }
    this.on = false;
    await this.empty();
  },

  // Whether closing the page would lose something.
  get unsaved() {
    const soundless = [...this.documents.values()].slice(-KEPT_SOUNDS).some((document) => document.soundless);
    return this.documents.size > 0 && (!this.on || this.failure !== '' || this.sounds.size > 0 || soundless);
  },

  async empty() {
    for (const name of ['documents', 'sounds']) await this.ask(name, 'readwrite', (store) => store.clear());
  },

  // Whether it was written.
  async write(name, use) {
    return this.on && (await this.ask(name, 'readwrite', use)) !== undefined;
  },

  // What `use` asked of a store of the database; undefined if that failed, or where there is no such thing.
  async ask(name, mode, use) {
    try {
      const transaction = (await this.database()).transaction(name, mode);
      const asked = use(transaction.objectStore(name));
      transaction.commit?.(); // at once, since the page may be closing
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      this.failure = '';
      return mode === 'readonly' ? asked.result : true;
    } catch (error) {
      this.failure = error.message || error.name;
    }
  },

  database() {
    this.opened ??= new Promise((resolve, reject) => {
      const opening = indexedDB.open('hark', 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore('documents', { keyPath: 'id' });
        opening.result.createObjectStore('sounds');
      };
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
    return this.opened;
  },
};
