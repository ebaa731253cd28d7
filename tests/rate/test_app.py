"""The rating pages over HTTP: who may do what, what is recorded, and that answers stay text."""

import json
import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from jaxtrain.rate.app import RatingApp, ServeConfig
from jaxtrain.rate.store import Sample, Store

XSS = '<script>alert(1)</script><img src=x onerror="alert(2)"> [here](javascript:alert(3)) ![](http://x.test/p.png)'


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/ratings.sqlite") as store:
        yield store


@pytest.fixture
def app(store) -> RatingApp:
    return RatingApp(store, "k" * 32, ServeConfig(overlap=2, gold_every=4), address="http://testserver")


def add(store: Store, text: str, answers: tuple[str, ...], gold: list[int] | None = None) -> int:
    prompt = store.add_prompt([{"role": "user", "content": text}])
    samples = [Sample(text=answer, checkpoint=f"model {k}") for k, answer in enumerate(answers)]
    return store.add_task(prompt, samples, seed=0, gold=gold)


def client(app: RatingApp, path: str) -> TestClient:
    """A browser of its own, that has opened a link."""
    found = TestClient(app.asgi)
    assert found.get(path).status_code == 200
    return found


def csrf(page: str) -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', page)
    assert match is not None
    return match[1]


def send(browser: TestClient, **fields):
    """Judge what is on the page, with the page's own token and task."""
    page = browser.get("/").text
    task = re.search(r'name="task" value="(\d+)"', page)
    assert task is not None
    return browser.post("/judge", data={"csrf": csrf(page), "task": task[1], "milliseconds": "1500"} | fields)


def test_without_a_valid_link_nothing_can_be_seen_or_done(store, app):
    add(store, "secret question", ("a", "b"))
    stranger = TestClient(app.asgi)
    token = app.invite_link("ann").rsplit("/", 1)[1]
    for path in ("/", "/admin", "/admin/rankings.jsonl", "/invite/forged", f"/admin/enter/{token}"):
        refused = stranger.get(path)
        assert refused.status_code == 403 and "secret question" not in refused.text, path
    assert stranger.post("/judge", data={"task": 1, "rank_0": 1, "rank_1": 2}).status_code == 403
    assert stranger.post("/admin/invite", data={"name": "me"}).status_code == 403
    assert store.counts()["judgements"] == 0 and store.counts()["raters"] == 0
    other = RatingApp(store, "o" * 32, ServeConfig())
    assert TestClient(other.asgi).get(app.invite_link("ann")).status_code == 403, "signed with another key"
    ann = client(app, app.invite_link("ann"))
    assert ann.get("/admin").status_code == 403, "a rater is no administrator"


def test_a_judgement_is_recorded_and_the_next_task_follows(store, app):
    first, second = add(store, "one?", ("a", "b", "c")), add(store, "two?", ("d", "e"))
    ann = client(app, app.invite_link("ann"))
    assert "one?" in ann.get("/").text
    after = send(ann, rank_0="2", rank_1="2", rank_2="4", reason="both fine")
    assert after.status_code == 200 and "two?" in after.text and "1 rated, 1 left" in after.text
    after = send(ann, verdict="all_bad", rank_0="", rank_1="")
    assert "Nothing left" in after.text
    found = list(store.comparisons())
    assert [(c.task, c.ranks, c.all_bad, c.milliseconds, c.rater, c.simulated) for c in found] == [
        (first, [1, 1, 2], False, 1500, "ann", False),
        (second, [1, 1], True, 1500, "ann", False),
    ]


def test_raters_are_asked_the_question_of_the_instructions(store, tmp_path):
    add(store, "one?", ("a", "b"))
    said = "# Which is *kinder*? <b>\n\nNot the **longer** one. <script>alert(1)</script>\n"
    (guide := tmp_path / "guide.md").write_text(said)
    app = RatingApp(store, "k" * 32, ServeConfig(instructions=str(guide)), address="http://testserver")
    ann = client(app, app.invite_link("ann"))
    page = ann.get("/").text
    assert "<h1>Which is *kinder*? &lt;b&gt;</h1>" in page and "<script>alert" not in page
    assert '<details class="guide" open>' in page and "Not the <strong>longer</strong> one." in page
    add(store, "two?", ("a", "b"))
    assert '<details class="guide"><summary>' in send(ann, rank_0="1", rank_1="2").text, "read once"


def test_skip_and_undo(store, app):
    add(store, "one?", ("a", "b"))
    ann = client(app, app.invite_link("ann"))
    assert "Nothing left" in send(ann, verdict="skip", rank_0="", rank_1="").text
    assert store.counts()["skipped"] == 1
    back = ann.post("/undo", data={"csrf": csrf(ann.get("/").text)})
    assert "one?" in back.text and store.counts()["judgements"] == 0
    send(ann, rank_0="2", rank_1="1")
    assert [c.ranks for c in store.comparisons()] == [[2, 1]]
    back = ann.post("/undo", data={"csrf": csrf(ann.get("/").text)}).text
    assert list(store.comparisons()) == []
    places = [re.findall(r'value="(\d)" selected', part) for part in back.split("<select")[1:]]
    assert places == [["2"], ["1"]], "the withdrawn order stands on the page, to be mended"
    send(ann, rank_0="1", rank_1="1")
    assert [c.ranks for c in store.comparisons()] == [[1, 1]]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"csrf": "forged"}, 403),
        ({"csrf": ""}, 403),
        ({"rank_1": ""}, 400),
        ({"rank_1": "x"}, 400),
        ({"rank_1": "-1"}, 400),
        ({"task": "99"}, 409),
        ({"rank_2": "3"}, 409),
        ({"verdict": "worst"}, 400),
        ({"milliseconds": "9" * 20}, 400),
        ({"reason": "x" * 70_000}, 413),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_recorded(store, app, change, status):
    add(store, "one?", ("a", "b"))
    ann = client(app, app.invite_link("ann"))
    refused = send(ann, **{"rank_0": "1", "rank_1": "2"} | change)
    assert refused.status_code == status and "Not possible" in refused.text
    assert store.counts()["judgements"] == 0
    assert ann.post("/judge", content=b"\xff\xfe").status_code == 400


def test_two_raters_judge_the_same_task_and_neither_replaces_the_other(store, app):
    task = add(store, "one?", ("a", "b"))
    ann, bob = client(app, app.invite_link("ann")), client(app, app.invite_link("bob"))
    pages = ann.get("/").text, bob.get("/").text
    assert all("one?" in page for page in pages)
    send(ann, rank_0="1", rank_1="2")
    send(bob, rank_0="2", rank_1="1")
    again = bob.post(
        "/judge",
        data={"csrf": csrf(bob.get("/").text), "task": task}
        | {"milliseconds": "1"}
        | {"rank_0": "1", "rank_1": "2"},
    )
    assert again.status_code == 409 and "judged task 1 before" in again.text
    assert {c.rater: c.ranks for c in store.comparisons()} == {"ann": [1, 2], "bob": [2, 1]}


def test_a_rater_judges_what_was_given_to_them(store, app):
    """Neither what another holds, nor what nobody was shown, nor a gold task; late is no harm."""
    now = [0.0]
    app = RatingApp(store, "k" * 32, ServeConfig(), clock=lambda: now[0])
    tasks = [add(store, f"question {n}?", ("a", "b")) for n in range(3)]
    gold = add(store, "known?", ("a", "b"), gold=[1, 2])
    ann, bob = client(app, app.invite_link("ann")), client(app, app.invite_link("bob"))
    held = {
        name: re.search(r'name="task" value="(\d+)"', page.get("/").text)
        for name, page in (("ann", ann), ("bob", bob))
    }
    assert [int(found[1]) for found in held.values() if found] == tasks[:2]
    order = {"milliseconds": "1", "rank_0": "1", "rank_1": "2"}
    for task in (tasks[1], tasks[2], gold):
        refused = ann.post("/judge", data={"csrf": csrf(ann.get("/").text), "task": str(task)} | order)
        assert refused.status_code == 409 and "was not given" in refused.text, task
    assert store.counts()["judgements"] == 0
    now[0] += 10_000
    page = bob.get("/").text
    assert bob.post("/judge", data={"csrf": csrf(page), "task": str(tasks[1])} | order).status_code == 200
    assert [found.task for found in store.comparisons()] == [tasks[1]]


def test_links_begin_with_the_configured_address_whatever_host_is_asked_for(store):
    app = RatingApp(store, "k" * 32, ServeConfig(), address="https://rate.example.org/")
    assert app.invite_link("ann").startswith("https://rate.example.org/invite/")
    admin = TestClient(app.asgi, base_url="https://rate.example.org")
    entered = admin.get(app.admin_link(), follow_redirects=False)
    assert "secure" in entered.headers["set-cookie"].lower(), "its cookies travel over https alone"
    form = {"csrf": csrf(admin.get("/admin").text), "name": "zoe"}
    page = admin.post("/admin/invite", data=form, headers={"Host": "evil.example"}, follow_redirects=False)
    assert page.status_code == 303
    page = admin.get("/admin").text
    assert "https://rate.example.org/invite/" in page and "evil" not in page


def test_a_text_too_long_to_lay_out_is_shown_as_it_is(store, app):
    """A table of thousands of columns takes seconds as Markdown."""
    add(
        store,
        "table?",
        ("<b>|" + "a|" * 3000 + "\n|" + "-|" * 3000 + "\n" + ("|" + "b|" * 3000 + "\n") * 10, "*b*"),
    )
    page = client(app, app.invite_link("ann")).get("/").text
    assert "<pre>&lt;b&gt;|a|a|" in page and "<em>b</em>" in page and "<td>" not in page


def test_prompts_answers_and_names_cannot_become_markup(store, app):
    add(store, XSS, (XSS, "**bold** and `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    page = client(app, app.invite_link("<b>eve</b>")).get("/")
    assert "<script>alert" not in page.text and "<img" not in page.text and "<b>eve" not in page.text
    assert 'href="javascript' not in page.text and "&lt;script&gt;alert(1)" in page.text
    assert "<strong>bold</strong>" in page.text and "<table>" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    cookie = page.request.headers["cookie"]
    assert cookie.startswith("session=")


def test_cookies_are_closed_to_scripts_and_a_changed_one_counts_for_nothing(store, app):
    browser = TestClient(app.asgi)
    set_cookie = browser.get(app.invite_link("ann"), follow_redirects=False).headers["set-cookie"]
    assert "httponly" in set_cookie and "samesite=lax" in set_cookie
    forged = TestClient(app.asgi, cookies={"session": "eyJhZG1pbiI6IHRydWV9.x.y"})
    assert forged.get("/admin").status_code == 403


def test_gold_tasks_come_to_every_rater_and_grade_them(store, app):
    for n in range(6):
        add(store, f"plain {n}", ("a", "b"))
    add(store, "gold one", ("right", "wrong"), gold=[1, 2])
    browsers = {name: client(app, app.invite_link(name)) for name in ("ann", "bob")}
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    for _ in range(4):
        for name, browser in browsers.items():
            page = browser.get("/").text
            seen[name].append("gold" if "gold one" in page else "plain")
            right_first = page.index("right") < page.index("wrong") if "gold one" in page else True
            better = right_first == (name == "ann")  # ann orders the gold task right, bob wrong
            send(browser, rank_0="1" if better else "2", rank_1="2" if better else "1")
    assert seen["ann"] == seen["bob"] == ["plain", "plain", "gold", "plain"]
    admin = client(app, app.admin_link()).get("/admin").text
    rows = re.findall(r'<th scope="row">(ann|bob)</th><td>4</td><td>1.5 s</td><td>([^<]+)</td>', admin)
    assert rows == [("ann", "100.0 %"), ("bob", "0.0 %")]


def test_the_administrator_invites_reads_and_downloads(store, app):
    add(store, "one?", ("a", "b", "c"))
    admin = client(app, app.admin_link())
    page = admin.post("/admin/invite", data={"csrf": csrf(admin.get("/admin").text), "name": "ann"}).text
    link = re.search(r'id="link">http://testserver([^<]+)<', page)
    assert link is not None
    assert admin.post("/admin/invite", data={"csrf": csrf(page), "name": " "}).status_code == 400
    send(client(app, link[1]), rank_0="1", rank_1="2", rank_2="2")
    page = admin.get("/admin").text
    assert "model 0" in page and "wins against the others" in page and "simulated raters" not in page
    assert "The longer answer wins" in page and "judgements still wanted, about" in page
    rankings = [json.loads(line) for line in admin.get("/admin/rankings.jsonl").text.splitlines()]
    assert [row["ranks"] for row in rankings] == [[1, 2, 2]]
    pairs = [json.loads(line) for line in admin.get("/admin/preferences.jsonl").text.splitlines()]
    assert len(pairs) == 2 and {p["chosen"][0]["content"] for p in pairs} == {rankings[0]["completions"][0]}
    assert admin.get("/admin/passwords.jsonl").status_code == 404
    simulated = store.add_rater("robot", simulated=True)
    store.judge(1, simulated, [1, 2, 3], now=0)
    assert "by <strong>simulated raters</strong>" in admin.get("/admin").text
