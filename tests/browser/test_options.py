"""Models, decoders and hot words: only what goes together is offered."""

from tests.browser.conftest import serve
from tests.browser.recordings import expect
from tests.loudness_recognizer import LoudnessRecognizer


def test_another_model_offers_its_own_decoders(chromium, uploads):
    plain, searching = LoudnessRecognizer("plain"), LoudnessRecognizer("searching", has_language_model=True)
    writing = LoudnessRecognizer("writing")  # as an imported Whisper, which knows no hot words
    writing.bundle.has_ctc, writing.bundle.vocabulary = False, "tokens"
    served = serve(uploads, plain, searching, writing)
    page = chromium.new_page()
    page.goto(next(served))
    tab = page.locator("#transcribe")
    for model, decoder in (("searching", "Words, with language model"), ("writing", None), ("plain", None)):
        tab.get_by_label("Model").click()
        page.get_by_role("option", name=f"{model}: WER not stated").click()
        expect(tab.get_by_label("Names and terms to expect")).to_be_visible(visible=decoder is not None)
        if decoder:
            expect(tab.get_by_label("Decoding")).to_have_value(decoder)
        else:
            expect(tab.get_by_label("Decoding")).to_be_hidden()
    page.close()
    served.close()
