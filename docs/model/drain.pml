/*
 * The drain protocol of blockcore. README.md beside this file says what is modelled, within which bounds, which
 * function of the code each part stands for, and how to read a counterexample.
 *
 *      R0      R2          R1          Roots
 *       |       |           |
 *       A       |           |          a node with a child of its own
 *       | e     |           |
 *       B or C  B           D          nodes with storage; the edge e is what a graph change moves
 *      \_________/          |
 *        loop 0           loop 1
 *
 * SCENE chooses who drains what. Q0, Q2, Q1 are the requests that arrive at R0, R2 and R1. WORK bounds the background
 * work of node B. Each BREAK_... macro takes one rule out of the protocol, and must be found out.
 */

#ifndef SCENE
#define SCENE 1
#endif

/* Things are Roots and nodes; parents have smaller numbers than their children. */
#define R0 0
#define R2 1
#define R1 2
#define A 3
#define B 4
#define C 5
#define D 6
#define THINGS 7
#define isRoot(x) (x < A)

#define bit(x) (1 << (x))
#define has(mask, x) (((mask) >> (x)) & 1)
/* Masks are plain numbers: the arguments of an inline may have no parentheses. */
#define onlyA 8
#define onlyB 16
#define onlyD 64
#define BandC 48
#define onlyC 32
#define AandD 72
#define onLoop0 59
#define onLoop1 68

/* Requests, numbered in the order in which they arrive at their Root. */
#ifndef Q0
#define Q0 2
#endif
#ifndef Q2
#define Q2 0
#endif
#ifndef Q1
#define Q1 0
#endif
#define REQUESTS (Q0 + Q2 + Q1)
#define rootOf(r) ((r) < Q0 -> R0 : ((r) < Q0 + Q2 -> R2 : R1))
#ifndef WORK
#define WORK 0
#endif

/* States of a request. */
#define Unborn 0
#define Late 1 /* arrived while held-back requests were being resumed: waits in ready for its turn */
#define Held 2 /* held back */
#define Woken 3 /* was held back, is counted in, has not run yet */
#define Upper 4 /* suspended inside of A */
#define Lower 5 /* suspended inside of the node with storage */
#define Done 6

/* States of the timer of B. */
#define Off 0
#define Armed 1
#define Put 2 /* to be armed again when B is resumed */

#define Close 0
#define Open 1

/* Controllers and sections: controller c has the sections 2c and 2c+1. */
#define CONTROLLERS 2
#define SECTIONS 4

/* Changed by controllers that hold control. */
bool control;
byte quiesce[THINGS]; /* sections and edges that quiesce it */
bool quiesced0, quiescedE, quiesced2, quiesced1; /* quiescedParent of the edges R0-A, A-e, R2-B, R1-D */
byte child = B; /* where the edge e leads */
byte nodes[SECTIONS]; /* what each section drains; 0 = none or ended */

/* Owned by the loops. */
bool closed[THINGS]; /* a Root admits nothing, a node is still */
byte resuming[3];
byte state[REQUESTS];
byte at[REQUESTS]; /* the node with storage that it is in */
byte born[3];
byte timer = Off;
byte work = WORK; /* background work that may still begin */
byte running; /* background work in progress */
chan ready[2] = [REQUESTS] of { byte };
chan held[3] = [REQUESTS] of { byte };

/* Safe from anywhere. */
byte inFlight[THINGS];
chan post[2] = [8] of { bit, byte, byte };
byte acks[CONTROLLERS];
bool rung[CONTROLLERS]; /* the bell's channel that the controller has taken is closed */
bool wish, granted; /* a Task hands a drain to a controller, which tells it when that is done */

/* For the properties only. The names are always true: they stand in assertions so that a report says which one is broken. */
bool P1 = true, P3 = true, P4 = true;
bool settled[SECTIONS];
byte unanswered[3]; /* admitted and without a reply */
chan order[3] = [REQUESTS] of { byte }; /* held back and not run since */
byte ended; /* controllers at the end of their scripts */

/* covered is what the sections in mask hold still: the nodes and all above them, in the graph of now. */
#define withA(m) ((m) | (has(m, child) -> bit(A) : 0))
#define up(m) (withA(m) | (has(withA(m), A) -> bit(R0) : 0) | (has(m, B) -> bit(R2) : 0) | (has(m, D) -> bit(R1) : 0))

/* P1: nothing runs where a section has settled and not ended. */
#define still(s, x) (settled[s] && has(up(nodes[s]), x))
#define mayRun(x) (!still(0, x) && !still(1, x) && !still(2, x) && !still(3, x))

/* ---- The loops ------------------------------------------------------------------------------------------------- */

/* bell.ring */
inline ring() {
	d_step {
		rung[0] = true;
#ifndef BREAK_RING_WAKES_ONE
		rung[1] = true
#endif
	}
}

/* Root.End, Node.end: count out, and tell those who wait for it. */
inline leave(x) {
#ifdef BREAK_KICK_BEFORE_DECREMENT
	if
	:: inFlight[x] == 1 && closed[x] -> ring()
	:: else
	fi;
	inFlight[x]--;
#else
	atomic { assert(P4 && inFlight[x] > 0); inFlight[x]--; last = (inFlight[x] == 0) };
	if
#ifdef BREAK_NODES_ARE_SILENT
	:: last && closed[x] && isRoot(x) -> ring()
#else
	:: last && closed[x] -> ring()
#endif
	:: else
	fi;
#endif
	last = false
}

/* startWork: background work of B begins, counted while it runs. */
inline startWork() {
#ifndef BREAK_WORK_UNCOUNTED
	inFlight[B]++;
#endif
	running++;
	assert(P1 && mayRun(B))
}

/* Root.Begin, up to where the request runs or is suspended. */
inline begin() {
	x = rootOf(r);
	if
#ifndef BREAK_NEWCOMERS_FIRST
	:: resuming[x] > 0 -> state[r] = Late; ready[me]!r
#endif
#ifdef BREAK_NEWCOMERS_FIRST
	:: closed[x] ->
#else
	:: resuming[x] == 0 && closed[x] ->
#endif
#ifdef BREAK_ADMIT_WITHOUT_CHECK
		inFlight[x]++; unanswered[x]++; admitted = true
#else
#ifdef BREAK_HELD_STAYS_COUNTED
		inFlight[x]++;
#endif
		state[r] = Held; held[x]!r; order[x]!r
#endif
	:: else ->
		assert(P3 && empty(order[x])); /* nobody held back is overtaken */
		inFlight[x]++; unanswered[x]++; admitted = true
	fi
}

inline enterLower(n) {
	assert(P1 && mayRun(n));
	inFlight[n]++; at[r] = n; state[r] = Lower;
	if
	:: n == B && work > 0 -> work--; startWork() /* goes on when the request has ended */
	:: n == B && work > 0 && timer == Off -> work--;
#ifdef BREAK_ARM_WHILE_STILL
		timer = Armed
#else
		timer = (closed[B] -> Put : Armed)
#endif
	:: true
	fi
}

/* quiet closes admission and stills drivers: one function on the loop, parents first. */
inline quiet(m, c) {
	x = 0;
	do
	:: x < THINGS ->
		if
		:: has(m, x) ->
			assert(P4 && !closed[x]); /* only 0->1 calls back */
			closed[x] = true;
			if
			:: x == B && timer == Armed ->
#ifndef BREAK_TIMER_STAYS_ARMED
				if
				:: timer = Put
				:: timer = Off; startWork()
				fi
#endif
			:: else
			fi
		:: else
		fi;
		x++
	:: else -> break
	od;
	x = 0;
	acks[c]++
}

/* unquiet resumes, children first; held-back requests are counted in at once, in their order. */
inline unquiet(m) {
	x = THINGS;
	do
	:: x > 0 ->
		x--;
		if
		:: has(m, x) ->
			assert(P4 && closed[x]); /* only 1->0 calls back */
			closed[x] = false;
			if
			:: x == B && timer == Put -> timer = Armed
			:: else
			fi;
			if
			:: isRoot(x) -> resume()
			:: else
			fi
		:: else
		fi
	:: else -> break
	od
}

/* Root.resume */
inline resume() {
#ifndef BREAK_HELD_FORGOTTEN
	do
	:: len(held[x]) > 0 ->
#ifdef BREAK_RESUME_LIFO
		n = len(held[x]);
		do
		:: n > 1 -> held[x]?r; held[x]!r; n--
		:: else -> break
		od;
#endif
		held[x]?r;
#if !defined(BREAK_HELD_STAYS_COUNTED) && !defined(BREAK_RESUME_UNCOUNTED)
		inFlight[x]++;
#endif
		resuming[x]++;
		state[r] = Woken; ready[me]!r
	:: else -> break
	od;
	n = 0; r = 0
#else
	skip
#endif
}

/* A request that was held back runs: it has been counted in by resume. */
inline awake() {
	x = rootOf(r);
	resuming[x]--;
#ifdef BREAK_RESUME_UNCOUNTED
	inFlight[x]++;
#endif
	assert(P3 && order[x]?[eval(r)]); /* in order */
	order[x]?_;
	unanswered[x]++;
	admitted = true
}

#define upperDone(i) \
	atomic { state[i] == Upper && me == 0 -> r = i; enterLower(child) }

/* A stacked request is served by the other export: it ends only after the first request of R0. */
#if SCENE == 4 || SCENE == 6
#define served(i) (rootOf(i) != R1 || state[0] == Done)
#else
#define served(i) true
#endif
#define lowerDone(i) \
	atomic { state[i] == Lower && (me == 1) == (rootOf(i) == R1) && served(i) -> r = i; done = true }

proctype Loop(byte me) {
	byte r, x, n, m, c;
	bool admitted, done, last;
	byte task; /* of a Task that wants a drain: 0 = not yet, 1 = suspended until it is done, 2 = gone on */

end: /* the loop sleeps */
		if
		:: atomic { post[me]?Close,m,c -> quiet(m, c); m = 0; c = 0 }
		:: atomic { post[me]?Open,m,c -> unquiet(m); m = 0; c = 0 }
		:: atomic { ready[me]?r -> if
				:: state[r] == Late -> begin()
				:: state[r] == Woken -> awake()
				fi
			}
#if Q0 > 0
		:: atomic { me == 0 && born[R0] < Q0 -> r = born[R0]; born[R0]++; begin() }
#endif
#if Q2 > 0
		:: atomic { me == 0 && born[R2] < Q2 -> r = Q0 + born[R2]; born[R2]++; begin() }
#endif
#if Q1 > 0
		:: atomic { me == 1 && born[R1] < Q1 -> r = Q0 + Q2 + born[R1]; born[R1]++; begin() }
#endif
		:: upperDone(0)
		:: lowerDone(0)
#if REQUESTS > 1
		:: upperDone(1)
		:: lowerDone(1)
#endif
#if REQUESTS > 2
		:: upperDone(2)
		:: lowerDone(2)
#endif
#if REQUESTS > 3
		:: upperDone(3)
		:: lowerDone(3)
#endif
#if REQUESTS > 4
		:: upperDone(4)
		:: lowerDone(4)
#endif
#if WORK > 0
		:: atomic { me == 0 && timer == Armed -> timer = Off; startWork() }
		:: atomic { me == 0 && running > 0 -> running-- };
#ifndef BREAK_WORK_UNCOUNTED
			leave(B)
#endif
#endif
#if SCENE == 5
		:: atomic { me == 0 && task == 0 -> task = 1; wish = true;
#ifdef BREAK_TASK_COUNTED
				inFlight[R2]++
#endif
			};
#ifdef BREAK_TASK_BLOCKS_LOOP
			granted
#endif
		:: me == 0 && task == 1 && granted ->
			task = 2;
#ifdef BREAK_TASK_COUNTED
			leave(R2)
#endif
#endif
		fi;
		if
		:: admitted -> /* from Root.Begin into the first node */
			admitted = false;
			if
			:: atomic { rootOf(r) == R0 -> assert(P1 && mayRun(R0) && mayRun(A)); inFlight[A]++; state[r] = Upper }
			:: atomic { rootOf(r) == R2 -> assert(P1 && mayRun(R2)); enterLower(B) }
			:: atomic { rootOf(r) == R1 -> assert(P1 && mayRun(R1)); enterLower(D) }
			fi
		:: done -> /* the I/O of r is complete: back up to Root.End */
			done = false;
			x = at[r];
			leave(x);
			x = rootOf(r);
			if
			:: x == R0 -> leave(A)
			:: else
			fi;
#ifdef BREAK_COUNT_BEFORE_REPLY
			leave(x);
			atomic { unanswered[x]--; at[r] = 0; state[r] = Done }
#else
			atomic { unanswered[x]--; at[r] = 0; state[r] = Done };
			leave(x)
#endif
		:: else
		fi;
		atomic { r = 0; x = 0; goto end }
}

/* ---- The controllers ------------------------------------------------------------------------------------------- */

inline lock() { atomic { !control -> control = true } }
inline unlock() { control = false }

inline inc(x) {
	quiesce[x]++;
	if
	:: quiesce[x] == 1 -> closers = closers | bit(x)
#ifdef BREAK_CALLBACK_NESTED
	:: else -> closers = closers | bit(x)
#else
	:: else
#endif
	fi
}

inline dec(x) {
	assert(P4 && quiesce[x] > 0); /* sections balance */
	quiesce[x]--;
	if
	:: quiesce[x] == 0 -> openers = openers | bit(x)
	:: else
	fi
}

/* edge keeps the rule of quiescedParent: an edge quiesces its parent once, for as long as its child is quiesced. */
inline edge(flag, parent, kid) {
	if
	:: quiesce[kid] > 0 && !flag -> flag = true; inc(parent)
	:: quiesce[kid] == 0 && flag -> flag = false; dec(parent)
	:: else
	fi
}

inline edges() {
	edge(quiescedE, A, child);
	edge(quiesced2, R2, B);
	edge(quiesced0, R0, A);
	edge(quiesced1, R1, D)
}

inline incAll(mask) {
	if :: has(mask, A) -> inc(A) :: else fi;
	if :: has(mask, B) -> inc(B) :: else fi;
	if :: has(mask, C) -> inc(C) :: else fi;
	if :: has(mask, D) -> inc(D) :: else fi
}

inline decAll(mask) {
	if :: has(mask, A) -> dec(A) :: else fi;
	if :: has(mask, B) -> dec(B) :: else fi;
	if :: has(mask, C) -> dec(C) :: else fi;
	if :: has(mask, D) -> dec(D) :: else fi
}

inline postClose(loop, things) {
	if
#ifdef BREAK_ACK_ONLY_OF_CHANGED
	:: (closers & things) != 0 -> post[loop]!Close,(closers & things),c; need++
#else
	:: (cover & things) != 0 -> post[loop]!Close,(closers & things),c; need++
#endif
	:: else
	fi
}

inline postOpen(loop, things) {
	if
	:: (openers & things) != 0 -> post[loop]!Open,(openers & things),c
	:: else
	fi
}

/* Graph.Drain. After it failed is set if the deadline came first. */
inline drain(s, mask) {
	lock();
	d_step {
		incAll(mask);
		edges();
		nodes[s] = mask;
		cover = up(mask)
	};
#ifdef BREAK_POST_AFTER_UNLOCK
	unlock();
#endif
	postClose(0, onLoop0);
	postClose(1, onLoop1);
#if !defined(BREAK_POST_AFTER_UNLOCK) && !defined(BREAK_WAIT_HOLDING_MUTEX)
	unlock();
#endif
	atomic {
#ifndef BREAK_NO_ACK
		acks[c] == need ->
		acks[c] = 0;
#endif
		need = 0; closers = 0
	};
	do
	::
#ifndef BREAK_BELL_AFTER_CHECK
		rung[c] = false; /* bell.await: take the channel, then look */
#endif
#ifdef BREAK_WAIT_HOLDING_MUTEX
		look(s);
#else
#ifdef BREAK_STALE_COVER
		look(s);
#else
#ifdef LOOK_AFTER_UNLOCK
		lock(); cover = up(nodes[s]); unlock();
		look(s);
#else
		lock(); cover = up(nodes[s]);
		look(s);
		unlock();
#endif
#endif
#endif
		if
		:: !busy -> break
		:: else
		fi;
#ifdef BREAK_BELL_AFTER_CHECK
		rung[c] = false;
#endif
		if
		:: rung[c]
#ifdef DEADLINE
		:: c == 0 -> failed = true; break
#endif
		fi
	od;
#ifdef BREAK_WAIT_HOLDING_MUTEX
	unlock();
#endif
	atomic { busy = false; cover = 0 };
	if
	:: failed -> end(s, mask)
	:: else
	fi
}

/* look reads the counts one by one, parents before children, and marks the section as settled if all are zero. */
inline look(s) {
	atomic { busy = false; x = 0; next() };
	do
	:: atomic { x < THINGS ->
			if
#ifdef BREAK_READ_CHILDREN_FIRST
			:: inFlight[THINGS - 1 - x] > 0 -> busy = true
#else
			:: inFlight[x] > 0 -> busy = true
#endif
			:: else
			fi;
			x++; next()
		}
	:: else -> break
	od;
	atomic {
		x = 0;
		if
		:: !busy -> settled[s] = true; m = up(nodes[s]); assertSettled(m); m = 0
		:: else
		fi
	}
}

inline next() {
	do
#ifdef BREAK_READ_CHILDREN_FIRST
	:: x < THINGS && !has(cover, THINGS - 1 - x) -> x++
#else
	:: x < THINGS && !has(cover, x) -> x++
#endif
	:: else -> break
	od
}

#define idle(m, x) (!has(m, x) || inFlight[x] == 0)
#define answered(m, x) (!has(m, x) || unanswered[x] == 0)
inline assertSettled(m) {
	assert(P1 && idle(m, R0) && idle(m, R2) && idle(m, R1) && idle(m, A) && idle(m, B) && idle(m, C) && idle(m, D));
	assert(P1 && answered(m, R0) && answered(m, R2) && answered(m, R1));
	assert(P1 && !has(m, B) || running == 0)
}

/* Drained.End */
inline end(s, mask) {
	lock();
	if
#ifndef BREAK_END_TWICE
	:: nodes[s] == 0 /* it is harmless */
	:: nodes[s] != 0 ->
#else
	:: true ->
#endif
		d_step {
			settled[s] = false;
			nodes[s] = 0;
			decAll(mask);
			edges()
		};
#ifdef BREAK_POST_AFTER_UNLOCK
		unlock();
#endif
		postOpen(0, onLoop0);
		postOpen(1, onLoop1);
		openers = 0
	fi;
#ifdef BREAK_POST_AFTER_UNLOCK
	control = false
#else
	unlock()
#endif
}

/* move is a graph change: it lets the edge e lead to another node. */
inline move(to) {
	lock();
	d_step {
		assert(P1 && inFlight[R0] == 0 && inFlight[A] == 0 && inFlight[child] == 0);
		child = to;
		edges()
	};
#ifdef RING_AT_CHANGE
	ring();
#endif
	assert(P1 && closers == 0); /* the section covers where it comes from and where it goes */
	postOpen(0, onLoop0);
	openers = 0;
	unlock()
}

proctype Controller(byte c) {
	byte closers, openers, cover, need, x, m;
	bool busy, failed;

	if
	:: c == 0 ->
#if SCENE == 1
		drain(0, onlyA);
		drain(1, onlyB);
		end(0, onlyA); /* not nested: they overlap */
		end(1, onlyB);
		end(1, onlyB)
#elif SCENE == 2 || SCENE == 7
#ifdef BREAK_TARGET_NOT_COVERED
		drain(0, onlyB);
		move(C);
		move(B); /* the change is undone */
		end(0, onlyB)
#else
		drain(0, BandC);
		move(C);
		end(0, BandC)
#endif
#elif SCENE == 6
		drain(0, AandD);
		if
		:: !failed -> end(0, AandD)
		:: else
		fi
#elif SCENE == 3
		drain(0, AandD);
		end(0, AandD)
#else
		drain(0, onlyA);
		end(0, onlyA)
#endif
	:: c == 1 ->
#if SCENE == 3 || SCENE == 4
		drain(2, onlyD);
		end(2, onlyD)
#elif SCENE == 7
		drain(2, onlyC);
		end(2, onlyC)
#else
#if SCENE == 5
		wish;
#endif
		drain(2, onlyB);
		end(2, onlyB);
#if SCENE == 5
		granted = true
#endif
#endif
	fi;
	ended++
}

#define all(array) (array[0] + array[1] + array[2] + array[3] + array[4] + array[5] + array[6])

#if REQUESTS == 1
#define allDone (state[0] == Done)
#elif REQUESTS == 2
#define allDone (state[0] == Done && state[1] == Done)
#elif REQUESTS == 3
#define allDone (state[0] == Done && state[1] == Done && state[2] == Done)
#elif REQUESTS == 4
#define allDone (state[0] == Done && state[1] == Done && state[2] == Done && state[3] == Done)
#else
#define allDone (state[0] == Done && state[1] == Done && state[2] == Done && state[3] == Done && state[4] == Done)
#endif

/*
 * Nothing in the model goes round for ever (checked by the search for cycles), so P2, P3 and P5 are that no
 * run gets stuck: the last process waits until all controllers are at their ends and every request has run.
 */
init {
	atomic {
		run Loop(0);
#if Q1 > 0 || SCENE == 3
		run Loop(1);
#endif
		run Controller(0);
		run Controller(1)
	};
	atomic {
		ended == CONTROLLERS && allDone && running == 0 && empty(post[0]) && empty(post[1]) && all(inFlight) == 0;
		assert(P4 && all(quiesce) == 0 && all(closed) == 0);
		assert(P4 && !quiesced0 && !quiescedE && !quiesced2 && !quiesced1);
		assert(P4 && resuming[0] + resuming[1] + resuming[2] == 0 && empty(ready[0]) && empty(ready[1]))
	}
}
