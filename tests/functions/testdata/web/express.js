'use strict';
// An Express application behind the two adapters that people use.
const express = require('express');
const codegenie = require('@codegenie/serverless-express');
const serverlessHttp = require('serverless-http');

const app = express();
app.use(express.json());
app.use(express.urlencoded({ extended: false }));
app.get('/web/express/items/:id', (req, res) => {
  res.cookie('a', '1').cookie('b', '2').json({ id: req.params.id, tags: [].concat(req.query.tag ?? []), agent: req.get('user-agent') });
});
app.get('/web/express/old', (req, res) => res.redirect(301, '/web/express/items/1'));
app.get('/web/express/bytes', (req, res) => res.type('application/octet-stream').send(Buffer.from([0, 1, 2, 253, 254, 255])));
app.post('/web/express/form', (req, res) => res.status(201).send(`${req.body.name} is ${req.body.mood}`));
app.post('/web/express/json', (req, res) => res.json({ got: req.body }));
app.use((req, res) => res.status(404).json({ nothing: req.path }));

exports.codegenie = codegenie.configure({ app });
exports.http = serverlessHttp(app, { binary: ['application/octet-stream'] });
