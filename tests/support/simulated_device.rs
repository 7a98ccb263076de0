//! A Modbus TCP device that holds exactly some registers and is as particular as the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::vectors::{Cells, Vector, Write};

/// A device at work, to look at and to change.
#[derive(Clone)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

pub(crate) struct State {
    vector: Vector,
    cells: BTreeMap<(String, u16), u16>,
    write_only: BTreeSet<u16>,
    /// What was written, in order.
    pub(crate) written: Vec<Write>,
    pub(crate) written_at: Vec<Instant>,
    /// What was refused: function, address, count or value, exception.
    pub(crate) refused: Vec<(u8, u16, u16, u8)>,
    /// Drops the connection at the next request.
    pub(crate) hang_up: bool,
}

impl Simulated {
    /// A device on a port of its own.
    pub(crate) async fn serve(vector: Vector) -> (Simulated, u16) {
        let device = Simulated(Arc::new(Mutex::new(State::new(vector))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let served = device.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(served.converse(stream).await);
            }
        });
        (device, port)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut header = [0; 7];
            stream.read_exact(&mut header).await?;
            let mut pdu = vec![0; usize::from(header[5]) - 1];
            stream.read_exact(&mut pdu).await?;
            let answer = {
                let mut state = self.state();
                if std::mem::take(&mut state.hang_up) {
                    return Ok(());
                }
                state.answer(&pdu)
            };
            header[5] = u8::try_from(answer.len() + 1).expect("a frame");
            stream.write_all(&[&header[..], &answer].concat()).await?;
        }
    }
}

impl State {
    fn new(vector: Vector) -> State {
        let mut state = State {
            cells: BTreeMap::new(),
            write_only: BTreeSet::new(),
            written: Vec::new(),
            written_at: Vec::new(),
            refused: Vec::new(),
            hang_up: false,
            vector,
        };
        let charger = state.vector.charger.clone();
        for charger in charger.iter() {
            let writes = [&charger.startup, &charger.start, &charger.stop].into_iter().flatten();
            for (function, address, words) in writes.chain(&charger.heartbeat) {
                let table = if *function == 5 { "coil" } else { "holding" };
                state.set(&(table.into(), *address, vec![0; words.len()]));
                if charger.blind {
                    state.write_only.insert(*address);
                }
            }
        }
        state.wire_relays();
        for cells in state.vector.registers.clone() {
            state.set(&cells);
        }
        state
    }

    fn wire_relays(&mut self) {
        let Some(relay) = self.vector.relay.clone() else { return };
        let table = if relay.function == 5 { "coil" } else { "holding" };
        let count = usize::from(relay.count);
        self.set(&(table.into(), relay.first, vec![0; count]));
        if let Some((table, first)) = relay.inputs {
            self.set(&(table, first, vec![0; 4]));
        }
        for (_, address, words) in relay.startup {
            self.set(&("holding".into(), address, vec![0; words.len()]));
        }
    }

    /// Sets registers, coils or inputs by hand.
    pub(crate) fn set(&mut self, (table, address, words): &Cells) {
        for (address, word) in (*address..).zip(words) {
            self.cells.insert((table.clone(), address), *word);
        }
    }

    pub(crate) fn get(&self, table: &str, address: u16) -> Option<u16> {
        self.cells.get(&(table.to_owned(), address)).copied()
    }

    fn answer(&mut self, pdu: &[u8]) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let (function, address, value) = (pdu[0], word(1), word(3));
        let answer = match function {
            1..=4 => self.read(function, address, value),
            5 => self.write(pdu, "coil", address, vec![value]),
            6 if self.vector.without_function_6 => Err(1),
            6 => self.write(pdu, "holding", address, vec![value]),
            16 => {
                let words = (0..usize::from(value)).map(|at| word(6 + 2 * at)).collect();
                self.write(&pdu[..5], "holding", address, words)
            }
            _ => Err(1),
        };
        answer.unwrap_or_else(|exception| {
            self.refused.push((function, address, value, exception));
            vec![function | 0x80, exception]
        })
    }

    fn read(&self, function: u8, address: u16, count: u16) -> Result<Vec<u8>, u8> {
        let table = ["coil", "discrete", "holding", "input"][usize::from(function) - 1];
        if function > 2 && count > self.vector.most {
            return Err(3);
        }
        if function > 2
            && self.vector.even
            && !(address.is_multiple_of(2) && count.is_multiple_of(2))
        {
            return Err(2);
        }
        let mut words = Vec::new();
        for address in address..address + count {
            let held = self.get(table, address).filter(|_| !self.write_only.contains(&address));
            let edge = words.is_empty() || words.len() + 1 == usize::from(count);
            // Devices that tolerate a hole still know what lies at both ends of a request.
            words.push(match held {
                Some(word) => word,
                None if self.vector.strict || edge => return Err(2),
                None => 0,
            });
        }
        Ok(if function > 2 { registers(function, &words) } else { bits(function, &words) })
    }

    fn write(
        &mut self,
        echo: &[u8],
        table: &str,
        address: u16,
        words: Vec<u16>,
    ) -> Result<Vec<u8>, u8> {
        if self.get(table, address).is_none() {
            return Err(2);
        }
        let shown = match &self.vector.relay {
            Some(relay) if table == "holding" && words == [relay.on] => vec![1],
            Some(relay) if table == "holding" && words == [relay.off] => vec![0],
            Some(_) | None if table == "coil" => vec![u16::from(words == [0xFF00])],
            Some(_) | None => words.clone(),
        };
        self.set(&(table.to_owned(), address, shown));
        self.written.push((echo[0], address, words));
        self.written_at.push(Instant::now());
        Ok(echo.to_vec())
    }
}

fn registers(function: u8, words: &[u16]) -> Vec<u8> {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let count = u8::try_from(words.len() * 2).expect("a frame");
    [function, count].into_iter().chain(bytes).collect()
}

fn bits(function: u8, words: &[u16]) -> Vec<u8> {
    let mut bytes = vec![0; words.len().div_ceil(8)];
    for (at, word) in words.iter().enumerate() {
        bytes[at / 8] |= u8::from(*word != 0) << (at % 8);
    }
    let count = u8::try_from(bytes.len()).expect("a frame");
    [function, count].into_iter().chain(bytes).collect()
}
