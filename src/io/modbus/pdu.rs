//! Requests and their answers as the specification has them: function, address, values.
//!
//! An answer is known by its question alone: its length, its function and all that it repeats. So
//! what differs in any field is told from the right answer without trusting a length byte.

/// What a unit is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// First address and count.
    ReadCoils(u16, u16),
    ReadDiscreteInputs(u16, u16),
    ReadHoldingRegisters(u16, u16),
    ReadInputRegisters(u16, u16),
    /// Address and value.
    WriteSingleCoil(u16, bool),
    WriteSingleRegister(u16, u16),
    /// First address and values.
    WriteMultipleRegisters(u16, Vec<u16>),
}

/// A verified answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Exactly as many as were asked for.
    Bits(Vec<bool>),
    /// Exactly as many as were asked for.
    Words(Vec<u16>),
    /// The device repeated what was written.
    Written,
}

/// Set in the function code of an exception.
pub(super) const EXCEPTION: u8 = 0x80;

impl Request {
    pub(super) fn function(&self) -> u8 {
        match self {
            Request::ReadCoils(..) => 1,
            Request::ReadDiscreteInputs(..) => 2,
            Request::ReadHoldingRegisters(..) => 3,
            Request::ReadInputRegisters(..) => 4,
            Request::WriteSingleCoil(..) => 5,
            Request::WriteSingleRegister(..) => 6,
            Request::WriteMultipleRegisters(..) => 16,
        }
    }

    /// What it is about, for messages.
    pub(super) fn label(&self) -> String {
        let table = match self {
            Request::ReadCoils(..) | Request::WriteSingleCoil(..) => "coil",
            Request::ReadDiscreteInputs(..) => "discrete",
            Request::ReadInputRegisters(..) => "input",
            Request::ReadHoldingRegisters(..)
            | Request::WriteSingleRegister(..)
            | Request::WriteMultipleRegisters(..) => "holding",
        };
        format!("{table} {}", self.fields().0)
    }

    /// Bytes of the request, function included.
    pub(super) fn length(&self) -> usize {
        match self {
            Request::WriteMultipleRegisters(_, words) => 6 + words.len() * 2,
            Request::ReadCoils(..)
            | Request::ReadDiscreteInputs(..)
            | Request::ReadHoldingRegisters(..)
            | Request::ReadInputRegisters(..)
            | Request::WriteSingleCoil(..)
            | Request::WriteSingleRegister(..) => 5,
        }
    }

    /// Bytes of the right answer, function included.
    pub(super) fn answer_length(&self) -> usize {
        self.byte_count().map_or(5, |count| 2 + count)
    }

    /// The answer in these bytes, or what differs from the right one.
    pub(super) fn check(&self, pdu: &[u8]) -> Result<Answer, String> {
        let [function, fields @ ..] = pdu else { return Err("no function".into()) };
        if *function != self.function() {
            return Err(format!("function {function} instead of {}", self.function()));
        }
        match self.byte_count() {
            Some(expected) => self.check_values(fields, expected),
            None => self.check_echo(fields),
        }
    }

    fn check_values(&self, fields: &[u8], expected: usize) -> Result<Answer, String> {
        let [count, values @ ..] = fields else { return Err("no byte count".into()) };
        if usize::from(*count) != expected || values.len() != expected {
            let shown = usize::from(*count).min(values.len());
            return Err(format!("{shown} bytes of values instead of {expected}"));
        }
        let asked = usize::from(self.fields().1);
        Ok(match self {
            Request::ReadCoils(..) | Request::ReadDiscreteInputs(..) => {
                let bit = |at: usize| values[at / 8] >> (at % 8) & 1 == 1;
                Answer::Bits((0..asked).map(bit).collect())
            }
            Request::ReadHoldingRegisters(..)
            | Request::ReadInputRegisters(..)
            | Request::WriteSingleCoil(..)
            | Request::WriteSingleRegister(..)
            | Request::WriteMultipleRegisters(..) => {
                let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
                Answer::Words(values.chunks_exact(2).map(word).collect())
            }
        })
    }

    fn check_echo(&self, fields: &[u8]) -> Result<Answer, String> {
        let [a, b, c, d] = fields else {
            return Err(format!("{} bytes instead of 4", fields.len()));
        };
        let confirmed = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let asked = self.fields();
        if confirmed != asked {
            return Err(format!(
                "address {} value {} confirmed instead of address {} value {}",
                confirmed.0, confirmed.1, asked.0, asked.1
            ));
        }
        Ok(Answer::Written)
    }

    /// Address, and count or value, as sent and (for writes) as repeated.
    fn fields(&self) -> (u16, u16) {
        match self {
            Request::ReadCoils(address, count)
            | Request::ReadDiscreteInputs(address, count)
            | Request::ReadHoldingRegisters(address, count)
            | Request::ReadInputRegisters(address, count) => (*address, *count),
            Request::WriteSingleCoil(address, on) => (*address, if *on { 0xFF00 } else { 0 }),
            Request::WriteSingleRegister(address, word) => (*address, *word),
            Request::WriteMultipleRegisters(address, words) => (*address, words.len() as u16),
        }
    }

    /// Bytes of values that a read brings; `None` for writes.
    fn byte_count(&self) -> Option<usize> {
        match self {
            Request::ReadCoils(_, count) | Request::ReadDiscreteInputs(_, count) => {
                Some(usize::from(*count).div_ceil(8))
            }
            Request::ReadHoldingRegisters(_, count) | Request::ReadInputRegisters(_, count) => {
                Some(usize::from(*count) * 2)
            }
            Request::WriteSingleCoil(..)
            | Request::WriteSingleRegister(..)
            | Request::WriteMultipleRegisters(..) => None,
        }
    }
}
